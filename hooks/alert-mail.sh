#!/bin/sh
# alert-mail.sh: send an e-mail when a backup is late, or not what it was, or back.
#
# Install  copy or symlink it as /etc/file-bucket/alert.sh
# Set      MAIL_TO, MAIL_FROM; SENDMAIL=msmtp where that is your mailer
# Needs    sendmail as Postfix, Exim, nullmailer or msmtp bring it; tr
# Answers  status 0 where the mailer took it; else 1, and it is called again later
#
# Called as: alert.sh BUCKET SERIES OLD-STATE NEW-STATE

: "${MAIL_TO:=root}"
: "${MAIL_FROM:=file-bucket}"
: "${SENDMAIL:=sendmail}"

set -eu
export LC_ALL=C
PATH=$PATH:/usr/sbin:/usr/lib # where sendmail lives, often outside a daemon's PATH

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

# The headers hold nothing a client chose, and of the bucket's name only characters
# that need no encoding (RFC 2047) and cannot begin another header. The recipient is
# an argument, not read from the headers ("-t"); "-i": a lone "." ends nothing.
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
series:    $(one_line "$series")
state:     $new, was $old
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
