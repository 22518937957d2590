#!/bin/sh
# alert-mail.sh: send an e-mail if a backup or the server has a problem.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      MAIL_TO, MAIL_FROM; SENDMAIL, if it is not "sendmail", such as msmtp
# Needs    a sendmail (in the systemd service only msmtp); fold, sed, tr
# Answers  status 0 if the mailer accepted it; otherwise 1: it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${MAIL_TO=root}"
: "${MAIL_FROM:=file-bucket}"
: "${SENDMAIL:=sendmail}"

set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/lib # sendmail is there, often outside a daemon's PATH

bucket=$1 series=$2 old=$3 new=$4
title=${FILEBUCKET_TITLE:-$bucket: $new}
text=${FILEBUCKET_MESSAGE:-$bucket: $series is $new, was $old}

fail() {
    echo "alert-mail: $1" >&2
    exit 1
}

# Clients choose names: remove what would break the line.
one_line() {
    printf %s "$1" | tr -d '\000-\037\177'
}

[ -n "$MAIL_TO" ] || fail "MAIL_TO is not set"

detail() {
    [ -z "$2" ] || printf '%-11s%s\n' "$1:" "$(one_line "$2")"
}

# No header contains text from a client. The title is reduced to characters that need
# no encoding (RFC 2047) and cannot begin another header. The recipient is an argument:
# "-t" would read it from the headers. "-i": a line with "." does not end it. A line may
# have 998 bytes (RFC 5322, 2.1.1).
subject="file-bucket: $(printf %s "$title" | tr -c 'A-Za-z0-9 #:().,_-' '?')"

{
    cat <<END
From: $MAIL_FROM
To: $MAIL_TO
Subject: $subject
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

$(one_line "$text")

END
    [ "$bucket" = - ] || detail bucket "$bucket"
    detail comment "${FILEBUCKET_COMMENT:-}"
    detail series "$series"
    detail state "$new (before: $old)"
    detail severity "${FILEBUCKET_SEVERITY:-}"
    detail since "${FILEBUCKET_SINCE:-}"
    detail reported "${FILEBUCKET_AGAIN:-}"
    detail expected "${FILEBUCKET_EXPECT:-}"
    detail due "${FILEBUCKET_DUE:-}"
    detail last "${FILEBUCKET_LAST:-}"
    detail file "${FILEBUCKET_LAST_NAME:-}"
    detail bytes "${FILEBUCKET_LAST_SIZE:-}"
    detail usual "${FILEBUCKET_USUAL_SIZE:-}"
    detail request "${FILEBUCKET_REQUEST_ID:-}"
    if [ -n "${FILEBUCKET_FAILURE:-}" ]; then
        printf '\nThe client reported:\n\n'
        printf '%s\n' "$FILEBUCKET_FAILURE" | tr -d '\000-\011\013-\037\177' |
            sed 's/^/    /'
    fi
    printf '\nAll backups: filebucket status\n'
} | fold -s -w 900 | "$SENDMAIL" -i "$MAIL_TO" >&2 || fail "not sent"
