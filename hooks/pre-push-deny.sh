#!/bin/sh
# pre-push-deny.sh: refuse a push by the file's name or size.
#
# Install  copy or symlink it as /etc/file-bucket/pre-push.sh
# Set      the patterns and sizes below, for each bucket
# Needs    a POSIX shell, nothing else
# Answers  0 accept, 1 refuse; it never allows overwriting
#
# Called as: pre-push.sh BUCKET FILENAME SIZE IP:PORT

LC_ALL=C
export LC_ALL

# A shell exits with 2 if this file has a mistake, and 2 would mean "accept, and
# overwrite". So the verdict is "refuse" until everything is checked.
verdict=1
trap 'exit "$verdict"' EXIT

set -u
bucket=$1 name=$2 size=$3

# ALLOW   shell patterns, separated by spaces; a name must match one. These begin with
#         a letter or digit, which excludes ".hidden" and "-option".
# MIN_BYTES, MAX_BYTES  the size must be between them, inclusive
# UNKNOWN_SIZE  "allow" or "deny" if the size is -1: the client does not know the
#         length in advance, as with a pipe (curl -T -). With "allow" the limits in the
#         configuration still apply.
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
    # This goes to the daemon's log. It must not contain the name, which the client
    # chose, nor the bucket, which may be a token.
    echo "pre-push-deny: $1" >&2
    exit
}

allowed() {
    set -f # match "*" with the name, not with files in this folder
    for pattern in $ALLOW; do
        # shellcheck disable=SC2254 # unquoted, because it is a pattern
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
    # Written so that a test that fails also refuses.
    [ "$size" -ge "$MIN_BYTES" ] || refuse "smaller than $MIN_BYTES bytes"
    [ "$size" -le "$MAX_BYTES" ] || refuse "larger than $MAX_BYTES bytes"
    ;;
esac

verdict=0
