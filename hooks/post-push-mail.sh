#!/bin/sh
# post-push-mail.sh: send an e-mail for each file that was pushed.
#
# Install  copy or symlink it as /etc/file-bucket/post-push.sh
# Set      MAIL_TO, MAIL_FROM; SENDMAIL, if it is not "sendmail", such as msmtp
# Needs    a sendmail (in the systemd service only msmtp); sha256sum, tr, wc
# Answers  the daemon's own line, so that "curl ... | sha256sum -c" still works; status
#          1 if the mailer failed
#
# Called as: post-push.sh BUCKET PATH IP:PORT

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${MAIL_TO:=root}"
: "${MAIL_FROM:=file-bucket}"
: "${SENDMAIL:=sendmail}"

set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/lib # sendmail is there, often outside a daemon's PATH

bucket=$1 path=$2 remote=$3

# Remove what would break a line of the mail.
one_line() {
    printf %s "$1" | tr -d '\000-\037\177'
}

name=$(one_line "${path##*/}")
printf '%s  %s\n' "$FILEBUCKET_SHA256" "$name"

# A bucket without a name is named by its token, 32 characters, which must not be
# mailed: print "#" and six digits of its hash instead, as the daemon's log does.
if [ "${#bucket}" -eq 32 ]; then
    bucket="#$(printf %s "$bucket" | sha256sum | cut -c 1-6)"
fi

# No header contains text from a client. The bucket's name is reduced to characters
# that need no encoding (RFC 2047) and cannot begin another header. The recipient is an
# argument: "-t" would read it from the headers. "-i": a line with "." does not end it.
subject="file-bucket: a file for $(printf %s "$bucket" | tr -c 'A-Za-z0-9#._-' '?')"

"$SENDMAIL" -i "$MAIL_TO" >&2 <<END || { echo "post-push-mail: not sent" >&2; exit 1; }
From: $MAIL_FROM
To: $MAIL_TO
Subject: $subject
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

file:     $name
bytes:    $(($(wc -c <"$path")))
sha256:   $FILEBUCKET_SHA256
bucket:   $(one_line "$bucket")
from:     $remote
request:  $FILEBUCKET_REQUEST_ID
END
