#!/bin/sh
# pre-push-deny.sh: refuse a push by the file's name or size.
#
# Install  copy or symlink it as /etc/file-bucket/pre-push.sh
# Set      the patterns and sizes below, for each bucket
# Needs    a POSIX shell, nothing else
# Answers  0 go on, 1 refuse; it never allows overwriting
#
# Called as: pre-push.sh BUCKET FILENAME SIZE IP:PORT

LC_ALL=C
export LC_ALL

# A shell that stumbles over a mistake in this very file ends with status 2, and 2
# would mean "go on and overwrite". So the verdict is "refuse" until all is checked.
verdict=1
trap 'exit "$verdict"' EXIT

set -u
bucket=$1 name=$2 size=$3

# ALLOW   patterns of the shell, a space between them; a name must match one. These
#         begin with a letter or digit, which keeps out ".hidden" and "-option".
# MIN_BYTES, MAX_BYTES  the size must lie between them, both included
# UNKNOWN_SIZE  "allow" or "deny", for a size of -1: the client did not say how much
#         it will send, as with a pipe (curl -T -). "deny" turns all of those away;
#         with "allow" the limits in the config still hold.
case $bucket in
db*)
    : "${ALLOW:=[A-Za-z0-9]*.sql.gz [A-Za-z0-9]*.dump}"
    : "${MIN_BYTES:=1024}" # an empty dump is a failed dump
    ;;
esac
: "${ALLOW:=[A-Za-z0-9]*.gz [A-Za-z0-9]*.xz [A-Za-z0-9]*.zst [A-Za-z0-9]*.gpg}"
: "${MIN_BYTES:=1}"
: "${MAX_BYTES:=107374182400}" # 100 GiB
: "${UNKNOWN_SIZE:=allow}"

refuse() {
    # Into the daemon's log. Neither the name nor the bucket: the client chose the
    # one, and the other may be a token.
    echo "pre-push-deny: $1" >&2
    exit
}

allowed() {
    set -f # "*" is for the name here, not for the files around us
    for pattern in $ALLOW; do
        # shellcheck disable=SC2254 # unquoted, because it is meant as a pattern
        case $name in
        $pattern) return 0 ;;
        esac
    done
    return 1
}

allowed || refuse "the name matches no allowed pattern"

case $size in
-1)
    [ "$UNKNOWN_SIZE" = allow ] || refuse "the size is not known"
    ;;
'' | *[!0-9]*)
    refuse "the size is not a number"
    ;;
*)
    # Asked so that a failing test refuses too.
    [ "$size" -ge "$MIN_BYTES" ] || refuse "smaller than $MIN_BYTES bytes"
    [ "$size" -le "$MAX_BYTES" ] || refuse "larger than $MAX_BYTES bytes"
    ;;
esac

verdict=0
