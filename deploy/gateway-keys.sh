#!/usr/bin/env bash
# Prints the Secret with a fresh key for the gateway, for `kubectl apply -f -`; with --file, the file alone, for a
# gateway without Kubernetes. Run it once: another key ends the sessions that the one before has sealed, unless both
# stand in the list.
#
#   gateway-keys.sh [--namespace NAMESPACE] [--name NAME]     a Secret
#   gateway-keys.sh --file                                    keys.json
set -euo pipefail
namespace=mcp-fleet-system name=mcp-fleet-gateway-keys file=''
while [ $# -gt 0 ]; do
  case $1 in
    --namespace) namespace=$2; shift 2 ;;
    --name) name=$2; shift 2 ;;
    --file) file=1; shift ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
  esac
done
key=$(head -c 32 /dev/urandom | base64 | tr -d '\n')
keys=$(printf '[{"id": "k%s", "key": "%s", "notBefore": "2026-01-01T00:00:00Z"}]' "$(date -u +%Y%m%d)" "$key")
if [ -n "$file" ]; then
  printf '%s\n' "$keys"
  exit
fi
cat <<EOF
apiVersion: v1
kind: Secret
metadata:
  name: $name
  namespace: $namespace
type: Opaque
stringData:
  keys.json: '$keys'
EOF
