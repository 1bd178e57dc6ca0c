package main

import "syscall"

// raiseDescriptorLimit raises the soft limit to the hard one, and returns it.
func raiseDescriptorLimit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	const plenty = 1 << 20
	if limit.Max > plenty {
		return plenty, nil
	}
	return int(limit.Max), nil
}
