#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The original's way to create an agent, with its flags: everything is done by `vm-agent create`.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: create-agent.sh --name <name> [options]
  --name <name>           Name of the agent (required)
  --type <type>           Agent type (default: generic)
  --cpu <count>           CPU cores (default: 2)
  --memory <size>         Memory size (default: 4G)
  --disk <size>           Disk size (default: 20G)
  --capabilities <list>   Comma-separated capabilities
  --hub-url <url>         Hub WebSocket URL (default: the driver's own way to the hub)
  --profile <file.json>   Profile to apply
  --driver <driver>       sandbox, qemu or multipass (default: the hub's)
TEXT
}

name='' profile='' flags=()
while [ $# -gt 0 ]; do
    case "$1" in
        --name | --type | --cpu | --memory | --disk | --capabilities | --hub-url | --profile | --driver)
            [ $# -ge 2 ] || { echo "create-agent.sh: $1 needs a value" >&2; exit 1; }
            case "$1" in
                --name) name=$2 ;;
                --profile) profile=$2 ;;
                *) flags+=("$1=$2") ;;
            esac
            shift 2
            ;;
        --help | -h) usage; exit 0 ;;
        *) echo "Unknown option: $1" >&2; usage >&2; exit 1 ;;
    esac
done
[ -n "$name" ] || { echo "Error: --name is required" >&2; usage >&2; exit 1; }
if [ -n "$profile" ]; then
    [ -f "$profile" ] || { echo "Error: profile file not found: $profile" >&2; exit 1; }
    flags+=("--profile=$(realpath -- "$profile")")
fi

# VM_AGENT names another program than the one on the PATH.
vm_agent=${VM_AGENT:-vm-agent}
command -v "$vm_agent" >/dev/null || { echo "Error: $vm_agent is not installed" >&2; exit 1; }

if "$vm_agent" status --json -- "$name" >/dev/null 2>&1; then
    printf "Agent %s exists. Delete and recreate it? (y/N) " "$name"
    read -r answer || { echo; exit 1; }
    case "$answer" in
        y | Y) "$vm_agent" destroy --force -- "$name" ;;
        *) exit 1 ;;
    esac
fi
exec "$vm_agent" create "${flags[@]}" -- "$name"
