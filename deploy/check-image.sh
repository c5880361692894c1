#!/usr/bin/env bash
# Start the server's image for real and ask it: deploy/check-image.sh
#
# Runs what the image itself says (its entry point, its health check, its user), in chroot isolation
# with the host's network, and calls /readyz, the gRPC health service and the server's card.
# Takes the settings of build-with-buildah.sh. Needs curl.
set -euo pipefail

store="${BUILD_STORE:-${TMPDIR:-/tmp}/pd-images}"
image=localhost/pd-server
grpc_port="${PD_GRPC_PORT:-50951}"
http_port="${PD_HTTP_PORT:-18080}"
ready_s=90

tool=(buildah --storage-driver vfs --root "$store/root" --runroot "$store/run")
images() { "${tool[@]}" "$@"; }
# A list of the image's configuration, one element a line.
setting() { images inspect --type image --format "{{range $1}}{{println .}}{{end}}" "$image" | sed '/^$/d'; }

mapfile -t entrypoint < <(setting .Docker.Config.Entrypoint)
mapfile -t healthcheck < <(setting .Docker.Config.Healthcheck.Test)
user="$(images inspect --type image --format '{{.Docker.Config.User}}' "$image")"
echo "entry point: ${entrypoint[*]}; user: $user; health check: ${healthcheck[*]}"

container="$(images from "$image")"
run=("${tool[@]}" run --isolation chroot --env "PD_SERVER_GRPC_PORT=$grpc_port"
  --env "PD_SERVER_HTTP_PORT=$http_port" --env PD_SERVER_READY_FILE=/tmp/ready.json "$container" --)
inside() { "${run[@]}" "$@"; }
server=""
finish() {
  [[ -z "$server" ]] || kill "$server" 2>/dev/null || true
  images rm "$container" >/dev/null
}
trap finish EXIT

echo "without TLS and a key it must refuse to listen beyond loopback:"
if inside "${entrypoint[@]}" 2>&1; then echo "it did not refuse" >&2; exit 1; fi

"${run[@]}" "${entrypoint[@]}" --host 127.0.0.1 &
server=$!
for ((second = 0; second < ready_s; second++)); do
  if inside "${healthcheck[@]:1}" 2>/dev/null; then break; fi
  kill -0 "$server" 2>/dev/null || { echo "the server ended before it was ready" >&2; exit 1; }
  sleep 1
done
inside "${healthcheck[@]:1}"
echo "user inside: $(inside id -u)"
echo "/readyz: $(curl --silent --show-error --fail "http://127.0.0.1:$http_port/readyz")"
inside /opt/pd/bin/python -c "
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pd_proto.v1 import generation_pb2, generation_pb2_grpc
with grpc.insecure_channel('127.0.0.1:$grpc_port') as channel:
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    print('grpc health:', health_pb2.HealthCheckResponse.ServingStatus.Name(health.status))
    card = generation_pb2_grpc.GenerationServiceStub(channel).GetServerInfo(
        generation_pb2.GetServerInfoRequest(), timeout=5)
    print('card:', card.model_name, card.engine, card.fingerprints.numerics_id)
"

# Chroot isolation has no process namespace: the server's own number is the host's. The image's
# STOPSIGNAL goes to it directly, because buildah passes none on.
kill -s "$(images inspect --type image --format '{{.Docker.Config.StopSignal}}' "$image")" \
  "$(inside /opt/pd/bin/python -c 'import json; print(json.load(open("/tmp/ready.json"))["pid"])')"
wait "$server"
server=""
echo "stopped in order; the image is sound"
