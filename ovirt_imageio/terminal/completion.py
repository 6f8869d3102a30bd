"""Completions of a program for bash, zsh and fish, made of what its parser knows.

Pure: text from a tree. Texts of help are ours, but quoted as if they were not.
"""

from __future__ import annotations

from collections.abc import Iterator

from ovirt_imageio.terminal.tree import FILE, FOLDER, NOTHING, Argument, Command, Option

__all__ = ["bash", "fish", "zsh"]


def bash(program: Command) -> str:
    """Return a script that bash reads when the name of the program is typed."""
    function = f"_{program.name.replace('-', '_')}"
    names = " ".join(command.name for command in program.commands)
    cases = "\n".join(bash_case(command.name, command) for command in program.commands)
    return f"""\
# Completions of {program.name} for bash, made from its parser.

{function}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case " {names} " in *" ${{COMP_WORDS[i]}} "*) command=${{COMP_WORDS[i]}}; break ;; esac
    done
    local options="" files="" folders="" words="" arguments=""
    case $command in
{cases}
{bash_case("*", program)}
    esac
    COMPREPLY=()
    case " $words" in *" $before="*)
        words=${{words#*"$before="}}
        words=${{words%% *}}
        COMPREPLY=($(compgen -W "${{words//,/ }}" -- "$word"))
        return ;;
    esac
    compopt -o filenames 2>/dev/null
    local IFS=$'\\n'
    case " $files " in *" $before "*) COMPREPLY=($(compgen -f -- "$word")); return ;; esac
    case " $folders " in *" $before "*) COMPREPLY=($(compgen -d -- "$word")); return ;; esac
    IFS=$' \\t\\n'
    case $word in
        -*) compopt +o filenames 2>/dev/null; COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        *)
            if [[ $arguments == commands ]]; then
                compopt +o filenames 2>/dev/null
                COMPREPLY=($(compgen -W "{names}" -- "$word"))
            elif [[ -n $arguments ]]; then
                IFS=$'\\n'
                COMPREPLY=($(compgen "$arguments" -- "$word"))
            fi ;;
    esac
}}

complete -F {function} {program.name}
"""


def bash_case(pattern: str, command: Command) -> str:
    """Return what bash knows of a command."""
    options = [flag for option in command.options for flag in option.flags]
    files = [flag for option in command.options if option.kind == FILE for flag in option.flags]
    folders = [flag for option in command.options if option.kind == FOLDER for flag in option.flags]
    words = [
        f"{flag}={','.join(option.choices)}" for option in command.options if option.choices for flag in option.flags
    ]
    kinds = [argument.kind for argument in command.arguments]
    arguments = "commands" if command.commands else "-f" if FILE in kinds else "-d" if FOLDER in kinds else ""
    return f"""\
        {pattern})
            options="{" ".join(options)}"
            files="{" ".join(files)}"
            folders="{" ".join(folders)}"
            words="{" ".join(words)}"
            arguments="{arguments}" ;;"""


def zsh(program: Command) -> str:
    """Return a function that zsh loads for the program."""
    commands = "\n".join(f"        {quoted(f'{colons(item.name)}:{colons(item.help)}')}" for item in program.commands)
    cases = "\n".join(
        f"            {item.name})\n                _arguments {zsh_arguments(item, ' ' * 20)} ;;"
        for item in program.commands
    )
    return f"""\
#compdef {program.name}
# Completions of {program.name} for zsh, made from its parser.

local curcontext=$curcontext state line
local -a commands

_arguments -C {zsh_arguments(program, " " * 4)} \\
    '1: :->command' \\
    '*:: :->arguments'
case $state in
    command)
        commands=(
{commands}
        )
        _describe command commands ;;
    arguments)
        case $words[1] in
{cases}
        esac ;;
esac
"""


def zsh_arguments(command: Command, indent: str) -> str:
    """Return the arguments of _arguments."""
    found = [spec for option in command.options for spec in zsh_options(option)]
    if not command.commands:
        found += [zsh_argument(argument) for argument in command.arguments]
    return "".join(f"\\\n{indent}{quoted(text)} " for text in found).rstrip()


def zsh_options(option: Option) -> Iterator[str]:
    """Yield an option as _arguments wants it, for each way to type it."""
    others = "*" if option.is_repeatable else f"({' '.join(option.flags)})"
    text = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    value = "" if option.kind == NOTHING else f":{colons(option.metavar)}:{zsh_action(option.kind, option.choices)}"
    for flag in option.flags:
        yield f"{others}{flag}[{text}]{value}"


def zsh_argument(argument: Argument) -> str:
    """Return an argument that has its place."""
    return f":{colons(argument.metavar)}:{zsh_action(argument.kind, ())}"


def zsh_action(kind: str, choices: tuple[str, ...]) -> str:
    """Return what completes a value."""
    if choices:
        return f"({' '.join(choices)})"
    return {FILE: "_files", FOLDER: "_files -/"}.get(kind, " ")


def colons(text: str) -> str:
    """Return text for a place where a colon would end it."""
    return text.replace("\\", "\\\\").replace(":", "\\:")


def quoted(text: str) -> str:
    """Return a word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def fish(program: Command) -> str:
    """Return the completions that fish loads for the program."""
    lines = [f"# Completions of {program.name} for fish, made from its parser.", "", f"complete -c {program.name} -f"]
    names = " ".join(command.name for command in program.commands)
    none = f"not __fish_seen_subcommand_from {names}"
    lines += [fish_option(program.name, none, option) for option in program.options]
    for command in program.commands:
        lines.append(
            f"complete -c {program.name} -n {fish_quoted(none)} -a {command.name} -d {fish_quoted(command.help)}"
        )
    for command in program.commands:
        seen = f"__fish_seen_subcommand_from {command.name}"
        lines += [fish_option(program.name, seen, option) for option in command.options]
        if any(argument.kind in (FILE, FOLDER) for argument in command.arguments):
            lines.append(f"complete -c {program.name} -n {fish_quoted(seen)} -F")
    return "\n".join(lines) + "\n"


def fish_option(name: str, condition: str, option: Option) -> str:
    """Return the completion of an option."""
    flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
    value = ""
    if option.choices:
        value = f" -x -a {fish_quoted(' '.join(option.choices))}"
    elif option.kind != NOTHING:
        value = " -r -F" if option.kind in (FILE, FOLDER) else " -x"
    return f"complete -c {name} -n {fish_quoted(condition)} {flags}{value} -d {fish_quoted(option.help)}"


def fish_quoted(text: str) -> str:
    """Return a word of fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
