#!/bin/sh
# pre-push-overwrite.sh: let clients overwrite files in one bucket only.
#
# DANGER: a client with the token of that bucket can destroy all files in it. Use it for
# a file with a fixed name that exists elsewhere, and keep backups in other buckets.
#
# Install  copy or symlink it as /etc/file-bucket/pre-push.sh
# Set      OVERWRITE_BUCKET, the bucket's name (its token if it has no name)
# Needs    a POSIX shell, nothing else
# Answers  2 accept and overwrite, for that bucket; 0 accept, for all others
#
# Called as: pre-push.sh BUCKET FILENAME SIZE IP:PORT

# Write the values here, after the =: a hook does not get the daemon's environment.
: "${OVERWRITE_BUCKET:=latest}"

# A shell also exits with 2 if this file has a mistake. So the verdict is "refuse" until
# the bucket is known, and 2 only for that one bucket.
verdict=1
trap 'exit "$verdict"' EXIT

set -u
case $1 in
"$OVERWRITE_BUCKET") verdict=2 ;; # quoted: not a pattern
*) verdict=0 ;;
esac
