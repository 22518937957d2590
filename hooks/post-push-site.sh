#!/bin/sh
# post-push-site.sh: publish a static site that was pushed as a .tar.gz.
#
#     tar -C public -cz . | curl -sT - http://backup:1234/$TOKEN/site-42.tar.gz
#
# It unpacks into a new directory, then replaces a symlink with rename(2): the web
# server sees the old site or the new one, never a mixture.
#
#     $SITE_DIR/current       -> releases/42; the web server's document root
#     $SITE_DIR/releases/42   the last $KEEP of them; to go back, replace the symlink:
#                             ln -s releases/41 new && mv -T new current
#
# Install  copy or symlink it as /etc/file-bucket/post-push.sh; make SITE_DIR, owned
#          by the daemon's user and writable only by it; set hook_timeout to the time
#          that the largest site needs
# Set      SITE_BUCKET, SITE_DIR, KEEP (at least 1), and the limits
# Needs    GNU tar, gzip, flock, awk, find, mv -T (GNU or busybox)
# Answers  the daemon's own line, so that "curl ... | sha256sum -c" still works, then
#          "published: release 42", or "not published: REASON" with status 1. The pushed
#          file stays in its bucket either way. For other buckets: the first line only.
#
# Refused: archive members that are not plain files or directories (links, devices,
# pipes), absolute names, "..", control characters and backslashes in names,
# set-user-ID, set-group-ID and sticky bits, directories that their owner cannot read,
# and archives over a limit.
#
# Called as: post-push.sh BUCKET PATH IP:PORT

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${SITE_BUCKET:=website}"
: "${SITE_DIR:=/srv/website}"
: "${KEEP:=5}"
: "${MAX_BYTES:=268435456}" # of the uncompressed archive, and of all its files: 256 MiB
: "${MAX_MEMBERS:=20000}"
: "${MAX_DEPTH:=32}" # a name such as a/a/a/... could create a thousand directories

set -eu
export LC_ALL=C
unset TAR_OPTIONS GZIP
umask 022
# shellcheck disable=SC3045 # not in POSIX, but in dash, busybox and bash
ulimit -c 0 # no core dump of a process that hits a limit below

bucket=$1 path=$2
printf '%s  %s\n' "$FILEBUCKET_SHA256" "${path##*/}"
[ "$bucket" = "$SITE_BUCKET" ] || exit 0

refuse() {
    echo "not published: $1"
    echo "post-push-site: not published: $1" >&2
    exit 1
}

case $path in
*.tar.gz | *.tgz) ;;
*) refuse "the name does not end in .tar.gz or .tgz" ;;
esac

# One process at a time, from here to the end. A process that waits longer than
# hook_timeout is killed; its lock goes with it.
mkdir -p "$SITE_DIR/releases"
exec 9>"$SITE_DIR/.lock"
flock 9 || refuse "cannot lock $SITE_DIR/.lock"

stage=$SITE_DIR/.incoming release=
clean_up() {
    # Without this, rm could not empty read-only directories.
    chmod -R u+rwX "$stage" 2>/dev/null || :
    rm -rf "$stage"
    # Remove a release that did not go live, too. The symlink tells, because a signal
    # may arrive between its replacement and the next line.
    if [ -n "$release" ] &&
        [ "$(readlink "$SITE_DIR/current")" != "releases/$release" ]; then
        rm -rf "$SITE_DIR/releases/$release"
    fi
}
clean_up # remove what a killed run left
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
mkdir -m 700 "$stage" "$stage/site"

# Decompress once: what is checked below is what is unpacked. The kernel limits the size
# of each file that the command writes (in blocks of 512 bytes), which stops a zip bomb.
blocks=$(((MAX_BYTES + 511) / 512))
(
    ulimit -f "$blocks"
    exec gzip -dc
) <"$path" >"$stage/tar" ||
    refuse "not a whole gzip file, or over $MAX_BYTES bytes unzipped"

# List the contents twice, names alone and modes with sizes, because one line with both
# could be ambiguous. "escape" keeps each name on one line. tar does not decompress what
# it reads from standard input.
list() (
    ulimit -f "$((MAX_MEMBERS * 2))" # 1 KiB for each member, on average
    exec tar --list --file=- --absolute-names --quoting-style=escape "$@"
)
if ! list <"$stage/tar" >"$stage/names" ||
    ! list --verbose --numeric-owner <"$stage/tar" >"$stage/modes"; then
    refuse "not a tar archive, or its table of contents is too long"
fi

# shellcheck disable=SC2016 # awk's variables, not the shell's
why=$(awk -v members="$MAX_MEMBERS" -v bytes="$MAX_BYTES" -v depth="$MAX_DEPTH" '
    function no(reason) {
        print "member " n " (" substr($0, 1, 60) "): " reason
        refused = 1
        exit
    }
    NR == FNR { mode[FNR] = $1; size[FNR] = $3; listed = FNR; next }
    {
        n = FNR
        if (n > members) no("more than " members " members")
        if (mode[n] !~ /^[-d]/) no("neither a plain file nor a directory")
        if (mode[n] ~ /[sStT]/) no("set-user-ID, set-group-ID or sticky")
        if (mode[n] ~ /^d/ && mode[n] !~ /^dr.x/) no("a directory closed to its owner")
        if (size[n] !~ /^[0-9]+$/) no("no size")
        if ((total += size[n]) > bytes) no("over " bytes " bytes in all")
        rest = $0
        gsub(/\\[23][0-7][0-7]/, "", rest) # bytes of UTF-8
        if (rest ~ /\\/) no("a backslash or control character in the name")
        if ($0 == "" || $0 ~ /^\//) no("no name, or an absolute one")
        if ($0 ~ /(^|\/)\.\.(\/|$)/) no("\"..\" in the name")
        if (gsub(/\//, "/", rest) >= depth) no("more than " depth " levels deep")
    }
    END {
        if (refused) exit
        if (!n) print "empty"
        else if (n != listed) print "two tables of contents that differ"
    }
' "$stage/modes" "$stage/names") || refuse "the table of contents cannot be read"
[ -z "$why" ] || refuse "$why"

(
    ulimit -f "$blocks"
    exec tar --extract --file=- --directory="$stage/site" \
        --no-same-owner --no-same-permissions
) <"$stage/tar" >&2 || refuse "tar could not unpack it"

# In case the check above missed one.
odd=$(find "$stage/site" ! -type d \( ! -type f -o -links +1 \)) ||
    refuse "what was unpacked cannot be read"
[ -z "$odd" ] || refuse "something that is neither a plain file nor a directory"

# Let the web server read it, whatever the modes in the archive and the umask.
chmod -R a+rX,u+w,go-w "$stage/site"

releases() {
    for dir in "$SITE_DIR/releases"/*; do
        case ${dir##*/} in
        0* | *[!0-9]*) ;; # not ours
        *) echo "${dir##*/}" ;;
        esac
    done
}

# Releases have numbers, not dates: a clock can go back.
last=$(releases | sort -n | tail -n 1)
release=$((${last:-0} + 1))
mv -T "$stage/site" "$SITE_DIR/releases/$release"
ln -s "releases/$release" "$stage/current"
mv -T "$stage/current" "$SITE_DIR/current" || refuse "$SITE_DIR/current is in the way"
echo "published: release $release"

for old in $(releases); do
    if [ "$old" -le "$((release - KEEP))" ] && [ "$old" -ne "$release" ]; then
        rm -rf "$SITE_DIR/releases/$old"
    fi
done
