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

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${NTFY_URL=}" # such as https://ntfy.example.org/
: "${NTFY_TOPIC:=backups}"
: "${NTFY_TOKEN_FILE=/etc/file-bucket/ntfy-token}"

set -eu
export LC_ALL=C

title=${FILEBUCKET_TITLE:-$1: $4} text=${FILEBUCKET_MESSAGE:-$1: $2 is $4, was $3}
severity=${FILEBUCKET_SEVERITY:-warning}

fail() {
    echo "alert-ntfy: $1" >&2
    exit 1
}

# Clients choose names: remove what would break the line.
one_line() {
    printf %s "$1" | tr -d '\000-\037\177'
}

# Escape text for a quoted string, in JSON (RFC 8259, section 7) and in a curl config
# file: backslash and quote are escaped, control characters removed. UTF-8 stays.
quote() {
    one_line "$1" | sed 's/[\\"]/\\&/g'
}

[ -n "$NTFY_URL" ] || fail "NTFY_URL is not set"

# ntfy's priorities: 5 overrides "do not disturb", 4 makes a sound, 2 does not.
case $severity in
critical) priority=4 tag=rotating_light ;;
ok) priority=2 tag=white_check_mark ;;
*) priority=3 tag=warning ;;
esac

json=$(
    printf '{"topic":"%s",' "$(quote "$NTFY_TOPIC")"
    printf '"title":"%s",' "$(quote "$title")"
    printf '"message":"%s",' "$(quote "$text")"
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
