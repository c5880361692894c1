#!/usr/bin/env bash
# Make a certificate and a key for one cloud:  deploy/make-secrets.sh [NAME_OR_ADDRESS ...]
#
# The certificate is self-signed and names every host that clients may dial: "cloud" (the compose
# service), localhost, 127.0.0.1 and the arguments. Clients trust it as their --tls-ca.
# Existing files are kept: remove them first to make new ones.
set -euo pipefail

folder="${PD_SECRETS:-$(dirname "${BASH_SOURCE[0]}")/secrets}"
names="DNS:cloud,DNS:localhost,IP:127.0.0.1"
for host in "$@"; do
  if [[ "$host" =~ ^[0-9.]+$|: ]]; then names+=",IP:$host"; else names+=",DNS:$host"; fi
done

# The folder is closed to other users of this machine. The files inside are readable, because
# compose mounts each one alone into a container whose user is another.
mkdir -p "$folder"
chmod 0700 "$folder"

if [[ -e "$folder/tls.key" || -e "$folder/api.key" ]]; then
  echo "kept what is in $folder; remove it first to make new secrets" >&2
  exit 0
fi
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
  -subj "/CN=pd-device cloud" -addext "subjectAltName=$names" \
  -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
openssl rand -hex 32 >"$folder/api.key"
chmod 0644 "$folder"/tls.crt "$folder"/tls.key "$folder"/api.key
echo "wrote $folder/{tls.crt,tls.key,api.key} for $names"
