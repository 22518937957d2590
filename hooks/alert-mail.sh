#!/bin/sh
# alert-mail.sh: send an e-mail when a backup is late, of unusual size, or fresh again.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      MAIL_TO, MAIL_FROM; SENDMAIL, if it is not "sendmail", such as msmtp
# Needs    sendmail (of Postfix, Exim, nullmailer or msmtp); tr
# Answers  status 0 if the mailer accepted it; otherwise 1: it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

: "${MAIL_TO:=root}"
: "${MAIL_FROM:=file-bucket}"
: "${SENDMAIL:=sendmail}"

set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/lib # sendmail is there, often outside a daemon's PATH

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

# No header contains text from a client. The bucket's name is reduced to characters
# that need no encoding (RFC 2047) and cannot begin another header. The recipient is an
# argument: "-t" would read it from the headers. "-i": a line with "." does not end it.
subject="file-bucket: $(printf %s "$bucket is $new" | tr -c 'A-Za-z0-9 #._-' '?')"

"$SENDMAIL" -i "$MAIL_TO" >&2 <<END || { echo "alert-mail: not sent" >&2; exit 1; }
From: $MAIL_FROM
To: $MAIL_TO
Subject: $subject
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

$(message)

bucket:    $(one_line "$bucket")
series:    $(one_line "${series:--}")
state:     $new (before: $old)
since:     $FILEBUCKET_SINCE
expected:  ${FILEBUCKET_EXPECT:--}
due:       ${FILEBUCKET_DUE:--}
last:      ${FILEBUCKET_LAST:--}
file:      $(one_line "${FILEBUCKET_LAST_NAME:--}")
bytes:     ${FILEBUCKET_LAST_SIZE:--}
usual:     ${FILEBUCKET_USUAL_SIZE:--}
request:   $FILEBUCKET_REQUEST_ID

All backups: filebucket status
END
