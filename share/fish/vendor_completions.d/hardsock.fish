# Completion of hardsock for fish.
set -l commands run explain top ps attach guard lab demo
complete -c hardsock -f
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -l help -d 'What there is'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -l version -d 'Which version it is'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a run -d 'Run a Python program under limits'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a explain -d 'Tell how a connect would go'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a top -d 'Look at the sockets of a process'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a ps -d 'List what can be inspected'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a guard -d 'Watch a port'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a lab -d 'hardsock-lab'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a attach -d 'Switch an inspect socket on'
complete -c hardsock -n "not __fish_seen_subcommand_from $commands" -a demo -d 'Show it, measured live'

complete -c hardsock -n "__fish_seen_subcommand_from $commands" -l help -d 'Its options'

complete -c hardsock -n '__fish_seen_subcommand_from run' -F
complete -c hardsock -n '__fish_seen_subcommand_from run' -x -l deadline -d 'Seconds for each exchange'
complete -c hardsock -n '__fish_seen_subcommand_from run' -x -l connect -d 'Seconds to connect'
complete -c hardsock -n '__fish_seen_subcommand_from run' -x -l read -d 'Seconds for each call'
complete -c hardsock -n '__fish_seen_subcommand_from run' -l report -d 'Print at the exit'
complete -c hardsock -n '__fish_seen_subcommand_from run' -r -F -l report-to -d 'Append to a file'
complete -c hardsock -n '__fish_seen_subcommand_from run' -x -l signal -a 'USR1 USR2 HUP none' -d 'Print on this signal'
complete -c hardsock -n '__fish_seen_subcommand_from run' -l no-tls -d 'Leave TLS to ssl'

complete -c hardsock -n '__fish_seen_subcommand_from explain' -l adapters -d 'The libraries that are installed'
complete -c hardsock -n '__fish_seen_subcommand_from explain' -x -l timeout -d 'Seconds of a connect'
complete -c hardsock -n '__fish_seen_subcommand_from explain' -l json -d 'Print JSON'
complete -c hardsock -n '__fish_seen_subcommand_from explain' -a '(__fish_print_hostnames)'

complete -c hardsock -n '__fish_seen_subcommand_from top' -l once -d 'Print once'
complete -c hardsock -n '__fish_seen_subcommand_from top' -x -l view -a 'sites connections pools waiters servers listeners breakers events' -d 'The first table'
complete -c hardsock -n '__fish_seen_subcommand_from top' -x -l interval -d 'Seconds between two looks'
complete -c hardsock -n '__fish_seen_subcommand_from top ps' -x -l format -a 'text json tsv' -d 'Of the output'
complete -c hardsock -n '__fish_seen_subcommand_from top attach' -a '(hardsock ps --format tsv 2>/dev/null | cut -f1)'

complete -c hardsock -n '__fish_seen_subcommand_from guard' -l dry-run -d 'Only tell'
complete -c hardsock -n '__fish_seen_subcommand_from guard' -x -l port -d 'To be watched'
complete -c hardsock -n '__fish_seen_subcommand_from guard' -r -F -l rules -d 'The rules'
complete -c hardsock -n '__fish_seen_subcommand_from guard' -x -l every -d 'Seconds between two looks'
complete -c hardsock -n '__fish_seen_subcommand_from guard' -x -l count -d 'Of looks'

complete -c hardsock -n '__fish_seen_subcommand_from demo' -l list -d 'Name the scenes'
complete -c hardsock -n '__fish_seen_subcommand_from demo' -l plain -d 'Aligned text'
complete -c hardsock -n '__fish_seen_subcommand_from demo' -x -l patience -d 'Times may be so many times as long'
complete -c hardsock -n '__fish_seen_subcommand_from demo' -a '(hardsock demo --list 2>/dev/null | string match -r "^\S+")'
