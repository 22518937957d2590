#!/bin/sh
# alert-ntfy.sh: push an alert to a phone, by ntfy.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      NTFY_URL        the server's root, not the topic's page
#          NTFY_TOPIC      the topic
#          NTFY_TOKEN_FILE  a file with an access token in its first line, mode 0600,
#                          owned by the daemon's user; empty: no token is sent
# Needs    curl, sed, tr
# Answers  status 0 where ntfy took it; else 1, and it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

: "${NTFY_URL:=https://ntfy.example.org/}"
: "${NTFY_TOPIC:=backups}"
: "${NTFY_TOKEN_FILE=/etc/file-bucket/ntfy-token}"

set -eu
export LC_ALL=C

bucket=$1 series=$2 old=$3 new=$4

# Names come from clients: each is kept to one line, whatever it holds.
one_line() {
    printf %s "$1" | tr -d '\000-\037\177'
}

# Bytes as people say them: 1288490189 is 1.2 GiB.
size_text() {
    bytes=$1 unit=1
    set -- B KiB MiB GiB TiB PiB
    while [ "$((bytes / unit))" -ge 1024 ] && [ "$#" -gt 1 ]; do
        unit=$((unit * 1024))
        shift
    done
    tenths=$(((bytes * 10 + unit / 2) / unit))
    if [ "$unit" -eq 1 ] || [ "$tenths" -ge 100 ]; then
        printf '%s\n' "$((tenths / 10)) $1"
    else
        printf '%s\n' "$((tenths / 10)).$((tenths % 10)) $1"
    fi
}

# What a person reads at three in the morning.
message() {
    what=$(one_line "$bucket${series:+: $series}")
    last="nothing came yet"
    if [ -n "$FILEBUCKET_LAST" ]; then
        last="the last came $FILEBUCKET_LAST"
        last="$last, $(size_text "${FILEBUCKET_LAST_SIZE:-0}")"
    fi
    usual=
    if [ -n "$FILEBUCKET_USUAL_SIZE" ]; then
        usual=", usual is $(size_text "$FILEBUCKET_USUAL_SIZE")"
    fi
    case $old-$new in
    *-late) text="is late; expected by ${FILEBUCKET_DUE:-now}, $last" ;;
    *-empty) text="has come empty; $last$usual" ;;
    *-shrunk | *-grown) text="has $new; $last$usual" ;;
    never-fresh) text="has its first push; $last" ;;
    *-fresh) text="is in order again, it was $old; $last" ;;
    *-never) text="waits for its first push" ;;
    *) text="is $new, it was $old; $last" ;;
    esac
    if [ -n "${FILEBUCKET_MORE:-}" ]; then
        what=$(one_line "$bucket")
        text="has $FILEBUCKET_MORE more series that changed, the worst is $new"
    fi
    printf '%s\n' "$what $text"
}

fail() {
    echo "alert-ntfy: $1" >&2
    exit 1
}

# The inside of a quoted string, in JSON (RFC 8259, section 7) as in a curl config
# file: backslash and quote are escaped, control characters left out. UTF-8 stays.
quote() {
    one_line "$1" | sed 's/[\\"]/\\&/g'
}

# What wakes you up: 5 does in spite of "do not disturb", 4 makes noise, 2 does not.
case $new in
late | empty) priority=4 tag=rotating_light ;;
fresh) priority=2 tag=white_check_mark ;;
*) priority=3 tag=warning ;;
esac

json=$(
    printf '{"topic":"%s",' "$(quote "$NTFY_TOPIC")"
    printf '"title":"%s",' "$(quote "$bucket is $new")"
    printf '"message":"%s",' "$(quote "$(message)")"
    printf '"priority":%s,"tags":["%s"]}' "$priority" "$tag"
)

token=
if [ -n "$NTFY_TOKEN_FILE" ]; then
    # "read" fails as well on a last line without a line break; that one is fine.
    IFS= read -r token <"$NTFY_TOKEN_FILE" || :
    [ -n "$token" ] || fail "no token in $NTFY_TOKEN_FILE"
fi

# All of it goes to curl on its stdin, for everybody on the machine can see its
# arguments, and the URL of a webhook is often a secret as well. printf is a builtin.
{
    printf 'url = "%s"\n' "$(quote "$NTFY_URL")"
    printf 'header = "Content-Type: application/json"\n'
    if [ -n "$token" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$(quote "$token")"
    fi
    printf 'data-binary = "%s"\n' "$(quote "$json")"
} | curl --disable --silent --show-error --fail --globoff --proto '=http,https' \
    --max-time 20 --output /dev/null --config - ||
    fail "the alert was not accepted"
