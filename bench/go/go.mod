module hardsock/bench

go 1.21
