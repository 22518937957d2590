#!/bin/sh
# post-push-container.sh: start a container from a root file system pushed as .tar.gz.
#
#     tar -C rootfs --exclude='./dev/*' -cz . |
#         curl -sT - http://backup:1234/$TOKEN/web-42.tar.gz
#
# becomes the machine fb-web-42 of systemd-nspawn: imported by "machinectl import-tar",
# started by "machinectl start". One push, one new container: an existing one is never
# replaced; stop and remove old ones yourself (machinectl poweroff, machinectl remove).
#
# WHOEVER HAS THE BUCKET'S TOKEN RUNS CODE ON THIS MACHINE, as root of a container.
# systemd-nspawn@.service gives it user and network namespaces of its own, which is no
# protection against a hole in the kernel. Use it for people you would let log in.
#
# Rights   The work of root is done by systemd-importd and systemd, asked over D-Bus.
#          This script runs as the daemon's user, which polkit has to allow it, in
#          /etc/polkit-1/rules.d/50-file-bucket.rules:
#
#     polkit.addRule(function (action, subject) {
#         if (subject.user != "file-bucket") return polkit.Result.NOT_HANDLED;
#         if (action.id == "org.freedesktop.import1.import" ||
#             action.id == "org.freedesktop.machine1.manage-images" &&
#                 action.lookup("verb") == "remove" &&
#                 /^fb-[a-z0-9-]+$/.test(action.lookup("image")) ||
#             action.id == "org.freedesktop.systemd1.manage-units" &&
#                 action.lookup("verb") == "start" &&
#                 /^systemd-nspawn@fb-[a-z0-9-]+\.service$/.test(action.lookup("unit")))
#             return polkit.Result.YES;
#     });
#
#          "import" cannot be narrowed to a name: the daemon's user may then import any
#          image. If that is too much, run a daemon of its own, as a user of its own.
#
# Install  copy or symlink it as /etc/file-bucket/post-push.sh; make WORK_DIR, owned by
#          the daemon's user, mode 0700; set the hooks' deadline to minutes: a hook
#          that is killed while importing leaves an image that is not started
# Set      CONTAINER_BUCKET, WORK_DIR, PREFIX (as in the rule above), and the limits
# Needs    machinectl with systemd-importd (Debian: systemd-container), GNU tar, gzip,
#          flock, awk
# Answers  the daemon's own line ("curl ... | sha256sum -c" still proves the copy),
#          then "started: fb-web-42"; or "not started: why", with status 1. The pushed
#          file stays in its bucket either way. Other buckets: that line only.
#
# Of the archive: a root file system needs symlinks, hard links and set-user-ID bits, so
# these stay; /var/lib/machines is closed to all but root. systemd-importd unpacks with
# few capabilities and does not follow names outwards. Checked here before it sees the
# archive, as a second lock on that door, and refused: device nodes and pipes (nspawn
# makes its own /dev), absolute names, "..", control characters and backslashes in
# names, members below a symlink of the archive, hard links to anything but a plain
# file of the archive, and whatever is over a limit.
#
# Called as: post-push.sh BUCKET PATH IP:PORT

: "${CONTAINER_BUCKET:=containers}"
: "${WORK_DIR:=/var/lib/file-bucket-containers}"
: "${PREFIX:=fb-}" # sets these apart from all other machines of the host
: "${MAX_CONTAINERS:=10}"
: "${MAX_BYTES:=4294967296}" # of the archive, unzipped, and of all its files: 4 GiB
: "${MAX_MEMBERS:=200000}"
: "${MAX_DEPTH:=64}" # or one name, a/a/a/..., could make a thousand directories

set -eu
export LC_ALL=C
unset TAR_OPTIONS GZIP
umask 077
# shellcheck disable=SC3045 # not in POSIX, but in dash, busybox and bash
ulimit -c 0 # no core dump from what runs into a limit below

bucket=$1 path=$2
name=${path##*/}
printf '%s  %s\n' "$FILEBUCKET_SHA256" "$name"
[ "$bucket" = "$CONTAINER_BUCKET" ] || exit 0

refuse() {
    echo "not started: $1"
    echo "post-push-container: not started: $1" >&2
    exit 1
}

# The name becomes a machine's, a unit's and a directory's. So: one label of a host
# name, in lower case, and short enough for all of them.
stem=${name%.tar.gz}
case $stem in
"$name") refuse "the name does not end in .tar.gz" ;;
'' | -* | *- | *[!a-z0-9-]*) refuse "a machine's name is of a-z, 0-9 and inner -" ;;
esac
machine=$PREFIX$stem
[ "${#machine}" -le 48 ] || refuse "the machine's name would be over 48 characters"

# One at a time, from here to the end. Whoever waits too long is killed at the hooks'
# deadline; the lock goes with the process.
exec 9>"$WORK_DIR/.lock"
flock 9 || refuse "cannot lock $WORK_DIR/.lock"

stage=$WORK_DIR/.incoming imported=
clean_up() {
    rm -rf "$stage"
    if [ -n "$imported" ]; then
        machinectl --no-ask-password remove "$machine" >&2 || :
    fi
}
clean_up # what a run that was killed outright has left
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
mkdir "$stage"

images=$(machinectl --no-legend --no-pager list-images) ||
    refuse "machinectl does not answer"
count=$(printf '%s\n' "$images" | awk -v prefix="$PREFIX" '
    index($1, prefix) == 1 { n++ }
    END { print n + 0 }
')
[ "$count" -lt "$MAX_CONTAINERS" ] || refuse "there are $count containers already"

# Unzip once; what is checked below is what is imported. The limit is the kernel's, on
# any file the command writes (in blocks of 512 bytes), so a bomb stops right there.
(
    ulimit -f "$(((MAX_BYTES + 511) / 512))"
    exec gzip -dc
) <"$path" >"$stage/tar" ||
    refuse "not a whole gzip file, or over $MAX_BYTES bytes unzipped"

# The table of contents, twice: names alone and modes with sizes, because in one line
# they could not be told apart for sure. "escape" keeps a name to one line, whatever is
# in it. The archive comes on stdin: tar then never unzips by itself a second time.
# systemd-importd reads on behind the archive's end mark, so the check has to as well.
list() (
    ulimit -f "$((MAX_MEMBERS * 2))" # 1 KiB for each member, on average
    exec tar --list --file=- --absolute-names --quoting-style=escape \
        --ignore-zeros "$@"
)
if ! list <"$stage/tar" >"$stage/names" ||
    ! list --verbose --numeric-owner <"$stage/tar" >"$stage/modes"; then
    refuse "not a tar archive, or its table of contents is too long"
fi

# shellcheck disable=SC2016 # awk's variables, not the shell's
why=$(awk -v members="$MAX_MEMBERS" -v bytes="$MAX_BYTES" -v depth="$MAX_DEPTH" '
    function no(reason) {
        print "member " n " (" substr(name[n], 1, 60) "): " reason
        refused = 1
        exit
    }
    function plain(path) { # without "./" and "//"
        gsub(/\/+/, "/", path)
        while (sub(/\/\.\//, "/", path)) { }
        while (sub(/^\.\//, "", path)) { }
        sub(/\/\.?$/, "", path)
        return path
    }
    NR == FNR { line[FNR] = $0; mode[FNR] = $1; size[FNR] = $3; listed = FNR; next }
    {
        n = FNR
        name[n] = $0
        if (n > members) no("more than " members " members")
        if (mode[n] !~ /^[-dlh]/) no("not a file, a directory or a link")
        if (size[n] !~ /^[0-9]+$/) no("no size")
        if ((total += size[n]) > bytes) no("over " bytes " bytes in all")
        rest = $0
        gsub(/\\[23][0-7][0-7]/, "", rest) # bytes of UTF-8
        if (rest ~ /\\/) no("a backslash or control character in the name")
        if ($0 == "" || $0 ~ /^\//) no("no name, or an absolute one")
        if ($0 ~ /(^|\/)\.\.(\/|$)/) no("\"..\" in the name")
        if (gsub(/\//, "/", rest) >= depth) no("more than " depth " levels deep")
        kind[plain($0)] = kind[plain($0)] substr(mode[n], 1, 1)
    }
    END {
        if (refused) exit
        if (!listed) { print "empty"; exit }
        if (n != listed) { print "two tables of contents that differ"; exit }
        for (n = 1; n <= listed; n++) {
            parts = split(plain(name[n]), part, "/")
            above = ""
            for (i = 1; i < parts; i++) {
                above = above part[i]
                if (above in kind && kind[above] ~ /l/) no("below a symlink")
                above = above "/"
            }
            if (mode[n] ~ /^h/) {
                mark = " " name[n] " link to "
                at = index(line[n], mark)
                target = plain(substr(line[n], at + length(mark)))
                if (!at || !(target in kind) || kind[target] !~ /^-+$/)
                    no("a hard link to something else than a file of the archive")
            }
        }
    }
' "$stage/modes" "$stage/names") || refuse "the table of contents cannot be read"
[ -z "$why" ] || refuse "$why"

# stdout belongs to the client. Without --force, an existing image makes this fail.
machinectl --quiet --no-ask-password import-tar - "$machine" <"$stage/tar" >&2 ||
    refuse "$machine exists, or could not be imported"
imported=yes
machinectl --no-ask-password start "$machine" >&2 ||
    refuse "$machine does not start"
imported=
echo "started: $machine"
