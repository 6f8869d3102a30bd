"""The socket below a stream: a plain one, or one of three ways to speak TLS over it.

Knows sockets and TLS; knows nothing of what is said.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Optional, Union

from ovirt_imageio.net import kernel_tls
from ovirt_imageio.net.descriptor_tls import DescriptorTLS
from ovirt_imageio.net.kernel_tls import KernelTLSSocket
from ovirt_imageio.net.plain_socket import PlainSocket
from ovirt_imageio.net.tls_socket import TLSSocket

__all__ = ["Channel", "speak_tls"]

# They have the same methods.
Channel = Union[PlainSocket, TLSSocket, DescriptorTLS, KernelTLSSocket]


def speak_tls(
    below: PlainSocket,
    context: ssl.SSLContext,
    deadline: float,
    *,
    server_side: bool = False,
    server_hostname: Optional[str] = None,
) -> Channel:
    """Return what speaks TLS over a socket, in the kernel if it can, once the handshake is over, before the deadline.

    Raises OSError.
    """
    tls = kernel_tls.begin(below, context, server_side=server_side, server_hostname=server_hostname)
    if tls is None:
        channel = TLSSocket(below, context, server_side=server_side, server_hostname=server_hostname)
        channel.handshake(deadline)
        return channel
    with contextlib.ExitStack() as stack:
        stack.callback(tls.release)
        tls.handshake(deadline)
        taken = kernel_tls.take_over(tls)
        stack.pop_all()
    return taken
