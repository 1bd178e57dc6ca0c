# Completion of hardsock-tune for bash.
_hardsock_tune() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word command=check
    local commands='check explain list show lint judge recommend diff apply revert status persist unpersist conflicts export import'
    local options='--profile --format --set --netns --root --from --baseline --state --to --output --history --trust --waivers --dry-run --force --keep --all --keys --symptoms --system --strict --quiet --help --version'
    COMPREPLY=()
    case $prev in
        -f | --format) mapfile -t COMPREPLY < <(compgen -W 'pretty tsv json prometheus junit sarif' -- "$cur") && return ;;
        --to) mapfile -t COMPREPLY < <(compgen -W 'sysctl.d kubernetes ansible tuned nixos' -- "$cur") && return ;;
        -R | --root | --state) mapfile -t COMPREPLY < <(compgen -d -- "$cur") && return ;;
        -N | --netns) mapfile -t COMPREPLY < <(cd /run/netns 2>/dev/null && compgen -f -- "$cur") && return ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
        return
    fi
    for word in "${COMP_WORDS[@]:1}"; do
        if [[ " $commands " == *" $word "* ]]; then
            command=$word
            break
        fi
    done
    case $command in
        explain) mapfile -t COMPREPLY < <(compgen -W "$(hardsock-tune list --keys --format tsv 2>/dev/null | cut -f1 | grep -vF '*')" -- "$cur") ;;
        import | judge) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        list | recommend | revert | status | unpersist) ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$(hardsock-tune list --format tsv 2>/dev/null | cut -f1)" -- "$cur"
            compgen -f -X '!*.yaml' -- "$cur") ;;
    esac
}
complete -F _hardsock_tune hardsock-tune
