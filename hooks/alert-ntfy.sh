#!/bin/sh
# alert-ntfy.sh: send an alert to a phone, with ntfy.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      NTFY_URL        the server's root, not the topic's page
#          NTFY_TOPIC      the topic
#          NTFY_TOKEN_FILE  a file with an access token in its first line, mode 0600,
#                          owned by the daemon's user; empty: no token is sent
# Needs    curl, sed, tr
# Answers  status 0 if ntfy accepted it; otherwise 1: it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

: "${NTFY_URL:=https://ntfy.example.org/}"
: "${NTFY_TOPIC:=backups}"
: "${NTFY_TOKEN_FILE=/etc/file-bucket/ntfy-token}"

set -eu
export LC_ALL=C

bucket=$1 series=$2 old=$3 new=$4

# Clients choose names: remove what would break the line.
one_line() {
    printf %s "$1" | tr -d '\000-\037\177'
}

# Print 1288490189 as 1.2 GiB.
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

message() {
    what=$(one_line "$bucket${series:+: $series}")
    last="no push yet"
    if [ -n "$FILEBUCKET_LAST" ]; then
        last="last push $FILEBUCKET_LAST"
        last="$last, $(size_text "${FILEBUCKET_LAST_SIZE:-0}")"
    fi
    usual=
    if [ -n "$FILEBUCKET_USUAL_SIZE" ]; then
        usual=", usual size $(size_text "$FILEBUCKET_USUAL_SIZE")"
    fi
    case $old-$new in
    *-late) text="is late; expected by ${FILEBUCKET_DUE:-now}, $last" ;;
    *-empty) text="is empty; $last$usual" ;;
    *-unfinished) text="has a push that never ended; $last" ;;
    *-shrunk | *-grown) text="has $new; $last$usual" ;;
    never-fresh) text="has its first push; $last" ;;
    *-fresh) text="is fresh again, was $old; $last" ;;
    *-never) text="awaits its first push" ;;
    *) text="is $new, was $old; $last" ;;
    esac
    if [ -n "${FILEBUCKET_MORE:-}" ]; then
        what=$(one_line "$bucket")
        text="has $FILEBUCKET_MORE more changed series, the worst is $new"
    fi
    printf '%s\n' "$what $text"
}

fail() {
    echo "alert-ntfy: $1" >&2
    exit 1
}

# Escape text for a quoted string, in JSON (RFC 8259, section 7) and in a curl config
# file: backslash and quote are escaped, control characters removed. UTF-8 stays.
quote() {
    one_line "$1" | sed 's/[\\"]/\\&/g'
}

# ntfy's priorities: 5 overrides "do not disturb", 4 makes a sound, 2 does not.
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
    # "read" also fails on a last line without a line break, which is fine here.
    IFS= read -r token <"$NTFY_TOKEN_FILE" || :
    [ -n "$token" ] || fail "no token in $NTFY_TOKEN_FILE"
fi

# curl reads everything from standard input: all users of the machine can see its
# arguments, and the URL of a webhook is often secret, too. printf is a builtin.
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
