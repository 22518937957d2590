#!/bin/sh
# alert-apprise.sh: send an alert with apprise, which knows over 80 services.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      APPRISE_CONFIG  a file with one URL a line, such as mailto://...; mode 0600,
#                          owned by the daemon's user
# Needs    apprise (apt install apprise), grep, sed
# Answers  status 0 if all services accepted it; otherwise 1: it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${APPRISE_CONFIG:=/etc/file-bucket/apprise.conf}"

set -eu
export LC_ALL=C

title=${FILEBUCKET_TITLE:-$1: $4} text=${FILEBUCKET_MESSAGE:-$1: $2 is $4, was $3}
severity=${FILEBUCKET_SEVERITY:-warning}

fail() {
    echo "alert-apprise: $1" >&2
    exit 1
}

grep -q '^[^#;]*://' "$APPRISE_CONFIG" || fail "no URL in $APPRISE_CONFIG"

case $severity in
critical) type=failure ;;
ok) type=success ;;
*) type=warning ;;
esac

# All users of the machine can see the arguments: the URLs are in a file, and the text,
# with names that clients chose, goes to standard input.
status=0
said=$(printf '%s\n' "$text" | LC_ALL=C.UTF-8 apprise -v --config="$APPRISE_CONFIG" \
    --notification-type="$type" --title="file-bucket: $title" 2>&1) ||
    status=1

# Its messages may quote secrets: hide each word that looks like a part of a URL.
printf '%s\n' "$said" | grep -E '^[0-9:, -]+ - (WARNING|ERROR|CRITICAL) - ' |
    sed -E 's/^[0-9:, -]+ - /apprise: /; s|[^ ]*[/@=][^ ]*|(hidden)|g' >&2 || :
[ "$status" -eq 0 ] || fail "the alert was not accepted"
