#!/bin/sh
# post-push-notify.sh: send a notification to ntfy, or any webhook that takes JSON.
#
# Install  copy or symlink it as /etc/file-bucket/post-push.sh
# Set      WEBHOOK_URL     ntfy: the server's root, not the topic's page
#          WEBHOOK_TOPIC   ntfy: the topic
#          WEBHOOK_TOKEN_FILE  a file with an access token in its first line, mode
#                          0600, owned by the daemon's user; empty: no token is sent
# Needs    curl, sed, tr, sha256sum
# Answers  the daemon's own line, so that "curl ... | sha256sum -c" still works; status
#          1 if the notification was not accepted
#
# Called as: post-push.sh BUCKET PATH IP:PORT

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${WEBHOOK_URL:=https://ntfy.example.org/}"
: "${WEBHOOK_TOPIC:=backups}"
: "${WEBHOOK_TOKEN_FILE=/etc/file-bucket/webhook-token}"

set -eu
export LC_ALL=C

bucket=$1 path=$2 remote=$3
name=${path##*/}
printf '%s  %s\n' "$FILEBUCKET_SHA256" "$name"

fail() {
    echo "post-push-notify: $1" >&2
    exit 1
}

# A bucket without a name is named by its token, 32 characters, which must not leave
# this machine: print "#" and six digits of its hash instead, as the daemon's log does.
if [ "${#bucket}" -eq 32 ]; then
    bucket="#$(printf %s "$bucket" | sha256sum | cut -c 1-6)"
fi

# Escape text for a quoted string, in JSON (RFC 8259, section 7) and in a curl config
# file: backslash and quote are escaped, control characters removed. UTF-8 stays.
quote() {
    printf %s "$1" | tr -d '\000-\037\177' | sed 's/[\\"]/\\&/g'
}

# ntfy reads "topic", "title" and "message", and ignores the other fields.
json=$(
    printf '{"topic":"%s",' "$(quote "$WEBHOOK_TOPIC")"
    printf '"title":"%s",' "$(quote "file-bucket: a file for $bucket")"
    printf '"message":"%s",' "$(quote "$name from $remote")"
    printf '"bucket":"%s",' "$(quote "$bucket")"
    printf '"file":"%s",' "$(quote "$name")"
    printf '"sha256":"%s",' "$(quote "$FILEBUCKET_SHA256")"
    printf '"request_id":"%s"}' "$(quote "$FILEBUCKET_REQUEST_ID")"
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
    fail "the notification was not accepted"
