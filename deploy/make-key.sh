#!/usr/bin/env bash
# Make one named key:  deploy/make-key.sh NAME
#
# Writes the key itself to NAME.key, for the device, and prints its entry for the server's file of
# keys (--api-keys-file), which has only its hash:
#
#   deploy/make-key.sh anna >>deploy/secrets/keys.toml
#
# A file that exists is kept: remove it first, or choose another name.
set -euo pipefail

name="${1:-}"
folder="${PD_SECRETS:-$(dirname "${BASH_SOURCE[0]}")/secrets}"
[[ "$name" =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ ]] \
  || { echo "give the key a name of letters, digits, dots, dashes and underscores" >&2; exit 2; }
mkdir -p "$folder"
chmod 0700 "$folder"
[[ ! -e "$folder/$name.key" ]] || { echo "$folder/$name.key exists" >&2; exit 1; }

(umask 077 && openssl rand -hex 32 >"$folder/$name.key")
hash="$(tr -d '\n' <"$folder/$name.key" | openssl dgst -sha256 -r | cut -d ' ' -f 1)"
echo "wrote $folder/$name.key" >&2
quoted="$name"
[[ "$name" != *.* ]] || quoted="\"$name\""
printf '[keys.%s]\nsha256 = "%s"\n' "$quoted" "$hash"
