#!/bin/sh
# report-mail.sh: send the report on standard input as an e-mail.
#
# Install  copy or symlink it as /etc/file-bucket/report.sh
# Set      MAIL_TO, MAIL_FROM; SENDMAIL, if it is not "sendmail", such as msmtp
# Needs    a sendmail (in the systemd service only msmtp); cat, tr
# Answers  status 0 if the mailer accepted it; otherwise 1
#
# Called as: filebucket report | report.sh

# Write the values here, after the =.
: "${MAIL_TO=root}"
: "${MAIL_FROM:=file-bucket}"
: "${SENDMAIL:=sendmail}"

set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/lib # sendmail is there, often outside a daemon's PATH

fail() {
    echo "report-mail: $1" >&2
    exit 1
}

[ -n "$MAIL_TO" ] || fail "MAIL_TO is not set"

# A failed "filebucket report" prints nothing: an empty mail would look like a success.
IFS= read -r title || fail "there is no report on standard input"

# The subject is the report's first line, reduced to characters that need no encoding
# (RFC 2047). The recipient is an argument: "-t" would read it from the headers. "-i": a
# line with "." does not end the mail.
{
    cat <<END
From: $MAIL_FROM
To: $MAIL_TO
Subject: $(printf %s "$title" | tr -c 'A-Za-z0-9 #:().,_-' '?')
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

END
    printf '%s\n' "$title"
    cat
} | "$SENDMAIL" -i "$MAIL_TO" >&2 || fail "not sent"
