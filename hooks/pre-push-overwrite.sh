#!/bin/sh
# pre-push-overwrite.sh: let one bucket overwrite its files, no other.
#
# For a bucket that holds the latest of something under a fixed name. Whoever has its
# token can destroy what is in it: keep backups in other buckets.
#
# Install  copy or symlink it as /etc/file-bucket/pre-push.sh
# Set      OVERWRITE_BUCKET, the bucket's name (its token where it has no name)
# Needs    a POSIX shell, nothing else
# Answers  2 go on and overwrite, for that bucket; 0 go on, for every other
#
# Called as: pre-push.sh BUCKET FILENAME SIZE IP:PORT

: "${OVERWRITE_BUCKET:=latest}"

# A shell that stumbles over a mistake in this very file ends with status 2 as well.
# So 2 is said only here, and only once the bucket is known to be the right one.
verdict=1
trap 'exit "$verdict"' EXIT

set -u
case $1 in
"$OVERWRITE_BUCKET") verdict=2 ;; # quoted: to the letter, not as a pattern
*) verdict=0 ;;
esac
