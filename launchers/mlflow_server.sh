#!/usr/bin/env bash
# An MLflow server on PostgreSQL that takes and serves files:
#
#   export MLFLOW_BACKEND_STORE_URI=postgresql://mlflow@db.example:5432/mlflow PGPASSWORD=...
#   export MLFLOW_SERVER_ALLOWED_HOSTS='mlflow:*,localhost:*'
#   launchers/mlflow_server.sh [--workers 4]
#
# All settings come from the environment, so that no password stands in a list of processes: PGPASSWORD, or ~/.pgpass.
#
#   MLFLOW_BACKEND_STORE_URI      database; made beforehand, its tables are made here
#   MLFLOW_ARTIFACTS_DESTINATION  folder or bucket of the files (./mlartifacts)
#   MLFLOW_SERVER_ALLOWED_HOSTS   hosts that a request may name; replaces MLflow's own list (localhost and loopback)
#   MLFLOW_HOST, MLFLOW_PORT      where it listens (127.0.0.1, 5000)
#
# Words after the command go to `mlflow server`. It asks nobody for a password: see docs/serving.md.
set -euo pipefail

if [ -z "${MLFLOW_BACKEND_STORE_URI:-}" ]; then
    echo "error: MLFLOW_BACKEND_STORE_URI is not set; expected postgresql://USER@HOST:5432/DATABASE" >&2
    exit 2
fi
case "$MLFLOW_BACKEND_STORE_URI" in
    postgresql://* | postgresql+psycopg://*) ;;
    *)
        echo "error: MLFLOW_BACKEND_STORE_URI is no address of PostgreSQL; expected postgresql://USER@HOST:5432/DATABASE" >&2
        exit 2
        ;;
esac
for word in "$@"; do
    case "$word" in
        --backend-store-uri*)
            echo "error: $word: a list of processes shows it; set MLFLOW_BACKEND_STORE_URI" >&2
            exit 2
            ;;
    esac
done
export MLFLOW_BACKEND_STORE_URI
export MLFLOW_SERVER_ALLOWED_HOSTS="${MLFLOW_SERVER_ALLOWED_HOSTS:-localhost,localhost:*,127.0.0.1,127.0.0.1:*}"
export MLFLOW_DISABLE_TELEMETRY="${MLFLOW_DISABLE_TELEMETRY:-true}"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION="${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}"
venv="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin"
[ ! -x "$venv/mlflow" ] || PATH="$venv:$PATH"
exec mlflow server --host "${MLFLOW_HOST:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" \
    --artifacts-destination "${MLFLOW_ARTIFACTS_DESTINATION:-./mlartifacts}" "$@"
