#!/bin/sh
# post-push-container.sh: start a container from a root filesystem pushed as .tar.gz.
#
#     tar -C rootfs --exclude='./dev/*' -cz . |
#         curl -sT - http://backup:1234/$TOKEN/web-42.tar.gz
#
# creates the systemd-nspawn machine fb-web-42: "machinectl import-tar" imports it, and
# "machinectl start" starts it. Each push creates a new container, and none is replaced:
# stop and remove old ones yourself (machinectl poweroff, machinectl remove).
#
# DANGER: A CLIENT WITH THE BUCKET'S TOKEN RUNS CODE ON THIS MACHINE, as root of a
# container. systemd-nspawn@.service gives it its own user and network namespaces, which
# do not protect against a kernel vulnerability. Use it only for people who may log in.
#
# Rights   systemd-importd and systemd do the work of root, and are called over D-Bus.
#          This script runs as the daemon's user. Allow it in
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
#          "import" cannot be limited to a name: the daemon's user may import any image.
#          If that is too much, run a separate daemon for it, as another user.
#
# Install  copy or symlink it as /etc/file-bucket/post-push.sh; make WORK_DIR, owned by
#          the daemon's user, mode 0700; set hook_timeout to minutes: a hook that is
#          killed during the import leaves an image that is not started
# Set      CONTAINER_BUCKET, WORK_DIR, PREFIX (as in the rule above), and the limits
# Needs    machinectl with systemd-importd (Debian: systemd-container), GNU tar, gzip,
#          flock, awk
# Answers  the daemon's own line, so that "curl ... | sha256sum -c" still works, then
#          "started: fb-web-42", or "not started: REASON" with status 1. The pushed file
#          stays in its bucket either way. For other buckets: the first line only.
#
# The archive: a root filesystem needs symlinks, hard links and set-user-ID bits, which
# are allowed; only root can enter /var/lib/machines. systemd-importd unpacks with few
# capabilities and does not follow names out of the image. As a second barrier, this
# script first refuses device nodes and pipes (nspawn creates its own /dev), absolute
# names, "..", control characters and backslashes in names, members below a symlink of
# the archive, hard links to anything but a plain file of the archive, and archives over
# a limit.
#
# Called as: post-push.sh BUCKET PATH IP:PORT

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${CONTAINER_BUCKET:=containers}"
: "${WORK_DIR:=/var/lib/file-bucket-containers}"
: "${PREFIX:=fb-}" # distinguishes these from the other machines of the host
: "${MAX_CONTAINERS:=10}"
: "${MAX_BYTES:=4294967296}" # of the uncompressed archive, and of all its files: 4 GiB
: "${MAX_MEMBERS:=200000}"
: "${MAX_DEPTH:=64}" # a name such as a/a/a/... could create a thousand directories

set -eu
export LC_ALL=C
unset TAR_OPTIONS GZIP
umask 077
# shellcheck disable=SC3045 # not in POSIX, but in dash, busybox and bash
ulimit -c 0 # no core dump of a process that hits a limit below

bucket=$1 path=$2
name=${path##*/}
printf '%s  %s\n' "$FILEBUCKET_SHA256" "$name"
[ "$bucket" = "$CONTAINER_BUCKET" ] || exit 0

refuse() {
    echo "not started: $1"
    echo "post-push-container: not started: $1" >&2
    exit 1
}

# The name becomes the name of a machine, a unit and a directory. So it must be one
# label of a host name, in lower case, and short enough for all three.
stem=${name%.tar.gz}
case $stem in
"$name") refuse "the name does not end in .tar.gz" ;;
'' | -* | *- | *[!a-z0-9-]*) refuse "a machine's name is of a-z, 0-9 and inner -" ;;
esac
machine=$PREFIX$stem
[ "${#machine}" -le 48 ] || refuse "the machine's name would be over 48 characters"

# One process at a time, from here to the end. A process that waits longer than
# hook_timeout is killed; its lock goes with it.
exec 9>"$WORK_DIR/.lock"
flock 9 || refuse "cannot lock $WORK_DIR/.lock"

stage=$WORK_DIR/.incoming imported=
clean_up() {
    rm -rf "$stage"
    if [ -n "$imported" ]; then
        machinectl --no-ask-password remove "$machine" >&2 || :
    fi
}
clean_up # remove what a killed run left
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

# Decompress once: what is checked below is what is imported. The kernel limits the size
# of each file that the command writes (in blocks of 512 bytes), which stops a zip bomb.
(
    ulimit -f "$(((MAX_BYTES + 511) / 512))"
    exec gzip -dc
) <"$path" >"$stage/tar" ||
    refuse "not a whole gzip file, or over $MAX_BYTES bytes unzipped"

# List the contents twice, names alone and modes with sizes, because one line with both
# could be ambiguous. "escape" keeps each name on one line. tar does not decompress what
# it reads from standard input. systemd-importd reads past the archive's end mark, so
# this check must, too.
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

# Standard output goes to the client. Without --force, this fails if the image exists.
machinectl --quiet --no-ask-password import-tar - "$machine" <"$stage/tar" >&2 ||
    refuse "$machine exists, or could not be imported"
imported=yes
machinectl --no-ask-password start "$machine" >&2 ||
    refuse "$machine does not start"
imported=
echo "started: $machine"
