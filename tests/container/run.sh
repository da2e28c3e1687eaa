#!/usr/bin/env bash
# Build the image and use it as an operator would: run, enqueue, probe, stop with SIGTERM.
#
#   BASE_IMAGE=... bash tests/container/run.sh
#
# Needs root and buildah; no container engine runs, so the daemon shares the host's network.
set -euo pipefail
cd "$(dirname "$0")/../.."
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
image=localhost/jobd:test
work=$(mktemp -d)
container=
daemon=

fail() {
  echo "container test: $*" >&2
  [ ! -s "$work/daemon.log" ] || tail -n 30 "$work/daemon.log" >&2
  exit 1
}

clean_up() {
  [ -z "$daemon" ] || kill -KILL "$(cat "$work/shared/pid")" 2>/dev/null || true
  [ -z "$container" ] || buildah rm "$container" >/dev/null || true
  exec 9>&- || true # the database lives as long as this end of its standard input
  wait
  rm -rf "$work"
}
trap clean_up EXIT

# --- build
arguments=(--format docker --tag "$image" --file Containerfile)
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
[ ! -d /etc/ssl/certs ] || arguments+=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
buildah bud "${arguments[@]}" . >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" >&2; fail "the build failed"; }

buildah inspect --type image "$image" >"$work/image.json"
uv run --frozen python - "$work/image.json" <<'PYTHON' || fail "the image is not set up as promised"
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["Entrypoint"] == ["jobd"] and config["Cmd"] == ["run"], config
assert config["User"] == "10001" and config["WorkingDir"] == "/app", config
assert config["Healthcheck"]["Test"] == ["CMD", "jobd", "health"], config
assert config["StopSignal"] in ("SIGTERM", "15"), config
PYTHON

# --- a database, and a container beside it
mkfifo "$work/hold"
uv run --frozen python -m tests.container.database <"$work/hold" >"$work/folder" &
exec 9>"$work/hold"
for _ in $(seq 100); do [ -s "$work/folder" ] && break; sleep 0.2; done
sockets=$(cat "$work/folder")
[ -n "$sockets" ] || fail "the database did not start"

chmod 0711 "$work"
install -d -m 0777 "$work/shared"
port=$(uv run --frozen python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
container=$(buildah from "$image")
buildah config \
  --env "JOBD_DATABASE_URL=postgresql://postgres@/jobd?host=/run/postgresql&port=5432" \
  --env JOBD_APP=app:jobs --env JOBD_HTTP_HOST=127.0.0.1 --env "JOBD_HTTP_PORT=$port" "$container"
inside() {
  buildah run --volume "$sockets:/run/postgresql" --volume "$work/shared:/shared" \
    --volume "$PWD/tests/container/app.py:/app/app.py:ro" "$container" -- "$@"
}

# --- without a database it says what to do, and does not start one of its own
if inside env -u JOBD_DATABASE_URL jobd run >"$work/refused" 2>&1; then fail "it ran without a database"; fi
grep -q JOBD_DATABASE_URL "$work/refused" || { cat "$work/refused" >&2; fail "the refusal names no setting"; }

# --- run
inside sh -c 'echo $$ >/shared/pid; exec jobd run' >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do
  curl -fsS "http://127.0.0.1:$port/readyz" >"$work/ready.json" 2>/dev/null && break
  kill -0 "$daemon" 2>/dev/null || fail "the daemon ended"
  sleep 0.3
done
[ -s "$work/ready.json" ] || fail "/readyz never answered"
pid=$(cat "$work/shared/pid")
[ "$(awk '/^Uid:/ {print $2}' "/proc/$pid/status")" = 10001 ] || fail "the daemon does not run as user 10001"

inside jobd enqueue noop '{"n":1}' --wait >"$work/enqueued" || fail "enqueue --wait failed"
inside jobd health || fail "jobd health failed"
curl -fsS "http://127.0.0.1:$port/metrics" >"$work/metrics"
grep -q '^jobd_.*kind="noop".* 1' "$work/metrics" || fail "/metrics does not show the job"

# --- stop
kill -TERM "$pid"
code=0
wait "$daemon" || code=$?
daemon=
[ "$code" = 0 ] || fail "after SIGTERM the daemon exited $code"
if inside jobd health >/dev/null 2>&1; then fail "jobd health succeeds without a daemon"; fi
echo "container test: passed"
