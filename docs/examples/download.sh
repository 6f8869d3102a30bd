#!/bin/sh
# Download a disk with curl, and go on where an earlier attempt stopped: download.sh URL FILE CA
set -eu
url=$1 file=$2 ca=$3

# A refusal must not end up in the file, a connection that breaks is tried again, and what is there is not sent again.
if [ ! -e "$file" ]; then
    curl --fail --silent --show-error --cacert "$ca" --retry 5 --output "$file" "$url"
else
    curl --fail --silent --show-error --cacert "$ca" --retry 5 --continue-at - --output "$file" "$url"
fi

# A connection that ended early looks like success to some programs: compare the size.
size=$(curl --fail --silent --show-error --cacert "$ca" --head "$url" | tr -d '\r' | sed -n 's/^[Cc]ontent-[Ll]ength: //p')
[ "$(stat --format=%s "$file")" = "$size" ]
echo "$file: $size bytes"
