#!/bin/sh
set -eu
url=https://backup.example.org:1443
folder=/volume1/data
umask 077
work=$(mktemp -d /volume1/push-data.XXXXXX)
trap 'rm -rf "$work"' EXIT
file=$work/data-$(date +%F).tar.gz
tar -C "$(dirname "$folder")" -czf "$file" "$(basename "$folder")"
sum=$(sha256sum <"$file" | cut -d' ' -f1)
curl --fail-with-body -sS --retry 5 --retry-connrefused -H @/root/.file-bucket \
    -H "X-Checksum-Sha256: $sum" -T "$file" "$url/"
