#!/usr/bin/env bash
# Make what one cloud and its clients need to trust each other, and what of it is missing:
#
#   deploy/make-secrets.sh [NAME_OR_ADDRESS ...]      authority, the cloud's certificate, a key
#   deploy/make-secrets.sh --renew [NAME ...]         a new certificate of the same authority
#   deploy/make-secrets.sh --client NAME              a certificate for one client (--tls-client-ca)
#
# The cloud's certificate names every host that clients may dial: "cloud" (the compose service),
# localhost, 127.0.0.1 and the arguments; without arguments, --renew keeps the names of the old one.
# Clients trust ca.crt as their --tls-ca, so a renewal changes nothing for them. ca.key signs: keep
# it where no server runs. Existing files are kept: remove one first to make it new.
set -euo pipefail

folder="${PD_SECRETS:-$(dirname "${BASH_SOURCE[0]}")/secrets}"
days=365
curve=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

# The folder is closed to other users of this machine. The files inside that a container reads are
# readable, because compose mounts each one alone into a container whose user is another.
mkdir -p "$folder"
chmod 0700 "$folder"
made=()

# Sign a new certificate: certify FILE COMMON_NAME PURPOSE [NAMES]; FILE.crt and FILE.key.
certify() {
  local work extensions
  work="$(mktemp -d)"
  extensions="basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = $3
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid"
  [[ -z "${4:-}" ]] || extensions+=$'\n'"subjectAltName = $4"
  openssl req "${curve[@]}" -subj "/CN=$2" -keyout "$work/key" -out "$work/request" 2>/dev/null
  openssl x509 -req -in "$work/request" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" \
    -set_serial "0x01$(openssl rand -hex 15)" -days "$days" -sha256 \
    -extfile <(echo "$extensions") -out "$work/leaf" 2>/dev/null
  cat "$work/leaf" "$folder/ca.crt" >"$work/chain"
  chmod 0644 "$work/chain" "$work/key"
  mv "$work/key" "$1.key"
  mv "$work/chain" "$1.crt"
  rm -r "$work"
  made+=("${1##*/}.crt" "${1##*/}.key")
}

names_of() {
  local list="DNS:cloud,DNS:localhost,IP:127.0.0.1" host
  for host in "$@"; do
    if [[ "$host" =~ ^[0-9.]+$|: ]]; then list+=",IP:$host"; else list+=",DNS:$host"; fi
  done
  echo "$list"
}

case "${1:-}" in
  --client | --renew)
    [[ -e "$folder/ca.key" ]] \
      || { echo "$folder has no ca.key to sign with; bring it back first" >&2; exit 1; } ;;&
  --client)
    name="${2:-}"
    [[ "$name" =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ && "$name" != tls && "$name" != ca ]] \
      || { echo "give the client a name of letters, digits, dots, dashes, underscores" >&2; exit 2; }
    [[ ! -e "$folder/$name.crt" ]] || { echo "$folder/$name.crt exists" >&2; exit 1; }
    certify "$folder/$name" "$name" clientAuth
    chmod 0600 "$folder/$name.key"
    echo "wrote $folder/{$name.crt,$name.key}"
    exit ;;
  --renew)
    shift
    if (($#)); then
      names="$(names_of "$@")"
    else
      names="$(openssl x509 -in "$folder/tls.crt" -noout -ext subjectAltName | tail -n 1 \
        | sed 's/IP Address:/IP:/g; s/ //g')"
    fi
    certify "$folder/tls" "pd-device cloud" serverAuth "$names"
    echo "wrote $folder/{tls.crt,tls.key} for $names; restart the cloud to use them"
    exit ;;
  -*) echo "no such option: $1" >&2; exit 2 ;;
esac

names="$(names_of "$@")"
if [[ ! -e "$folder/tls.crt" || ! -e "$folder/tls.key" ]]; then
  if [[ ! -e "$folder/ca.crt" || ! -e "$folder/ca.key" ]]; then
    openssl req -x509 "${curve[@]}" -days 3650 -subj "/CN=pd-device authority" \
      -addext "basicConstraints = critical, CA:TRUE, pathlen:0" \
      -addext "keyUsage = critical, keyCertSign, cRLSign" \
      -keyout "$folder/ca.key" -out "$folder/ca.crt" 2>/dev/null
    chmod 0600 "$folder/ca.key"
    made+=(ca.crt ca.key)
  fi
  certify "$folder/tls" "pd-device cloud" serverAuth "$names"
else
  names="the hosts it was made for"
fi
# ca.crt of one's own authority is brought along with tls.crt; one made by hand is its own.
[[ -e "$folder/ca.crt" ]] || { cp "$folder/tls.crt" "$folder/ca.crt"; made+=(ca.crt); }
for file in api.key grafana.password; do
  [[ -e "$folder/$file" ]] || { openssl rand -hex 32 >"$folder/$file"; made+=("$file"); }
done
# For models that only an account may have; empty: none is sent.
[[ -e "$folder/hf.token" ]] || { : >"$folder/hf.token"; made+=(hf.token); }
chmod 0644 "$folder"/{ca.crt,tls.crt,tls.key,api.key,grafana.password,hf.token}

if ((${#made[@]})); then
  echo "wrote ${made[*]} in $folder; the cloud's certificate is for $names"
else
  echo "kept what is in $folder; remove a file first to make it new" >&2
fi
