#!/bin/sh
# alert-webhook.sh: send an alert to Slack, Mattermost, or any webhook that takes JSON.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      WEBHOOK_URL
#          WEBHOOK_TOKEN_FILE  a file with an access token in its first line, mode
#                          0600, owned by the daemon's user; empty: no token is sent
# Needs    curl, sed, tr
# Answers  status 0 if the alert was accepted; otherwise 1: it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${WEBHOOK_URL=}" # such as https://hooks.example.org/services/...
: "${WEBHOOK_TOKEN_FILE=}"

set -eu
export LC_ALL=C

bucket=$1 series=$2 old=$3 new=$4
text=${FILEBUCKET_MESSAGE:-$bucket: $series is $new, was $old}

fail() {
    echo "alert-webhook: $1" >&2
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

[ -n "$WEBHOOK_URL" ] || fail "WEBHOOK_URL is not set"

# A JSON string, or null if it is empty.
string() {
    if [ -n "$1" ]; then printf '"%s"' "$(quote "$1")"; else printf null; fi
}

# Chats show "text"; names in it must not notify people ("@all", "<!channel>"). The
# other fields are for your own programs.
json=$(
    printf '{"text":%s,' "$(string "$(printf %s "$text" | tr '<>&@' '????')")"
    printf '"severity":%s,' "$(string "${FILEBUCKET_SEVERITY:-}")"
    printf '"bucket":%s,"series":%s,' "$(string "$bucket")" "$(string "$series")"
    printf '"old":%s,"new":%s,' "$(string "$old")" "$(string "$new")"
    printf '"comment":%s,' "$(string "${FILEBUCKET_COMMENT:-}")"
    printf '"again":%s,' "$(string "${FILEBUCKET_AGAIN:-}")"
    printf '"since":%s,' "$(string "${FILEBUCKET_SINCE:-}")"
    printf '"due":%s,' "$(string "${FILEBUCKET_DUE:-}")"
    printf '"expect":%s,' "$(string "${FILEBUCKET_EXPECT:-}")"
    printf '"last":%s,' "$(string "${FILEBUCKET_LAST:-}")"
    printf '"last_name":%s,' "$(string "${FILEBUCKET_LAST_NAME:-}")"
    printf '"last_size":%s,' "${FILEBUCKET_LAST_SIZE:-null}"
    printf '"usual_size":%s,' "${FILEBUCKET_USUAL_SIZE:-null}"
    printf '"request_id":%s}' "$(string "${FILEBUCKET_REQUEST_ID:-}")"
)

token=
if [ -n "$WEBHOOK_TOKEN_FILE" ]; then
    # "read" also fails on a last line without a line break, which is fine here.
    IFS= read -r token <"$WEBHOOK_TOKEN_FILE" || :
    [ -n "$token" ] || fail "no token in $WEBHOOK_TOKEN_FILE"
fi

# curl reads everything from standard input: all users of the machine can see its
# arguments, and the URL of a webhook is often secret, too. printf is a builtin.
{
    printf 'url = "%s"\n' "$(quote "$WEBHOOK_URL")"
    printf 'header = "Content-Type: application/json"\n'
    if [ -n "$token" ]; then
        printf 'header = "Authorization: Bearer %s"\n' "$(quote "$token")"
    fi
    printf 'data-binary = "%s"\n' "$(quote "$json")"
} | curl --disable --silent --show-error --fail --globoff --proto '=http,https' \
    --max-time 20 --output /dev/null --config - ||
    fail "the alert was not accepted"
