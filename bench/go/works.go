package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

const (
	asleepFor    = 200 * time.Microsecond
	memoryWarmUp = 500
	// Descriptors kept free for everything else.
	spareDescriptors = 200
)

var dialer = net.Dialer{Timeout: deadline}

var request = bytes.Repeat([]byte("x"), messageSize)

func connectClose(address string, length time.Duration, _ int) (result, error) {
	return rate(length, func() error {
		conn, err := dialer.Dial("tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func exchange(conn net.Conn, reply []byte) error {
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, reply)
	return err
}

func requestReply(address string, length time.Duration, _ int) (result, error) {
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	reply := make([]byte, messageSize)
	return rate(length, func() error { return exchange(conn, reply) })
}

// waitUntilParked returns when the runtime says that one goroutine waits for the network.
func waitUntilParked(stacks []byte) error {
	for give := time.Now().Add(2 * deadline); time.Now().Before(give); {
		if bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("[IO wait")) {
			return nil
		}
		runtime.Gosched()
	}
	return errors.New("the goroutine to be cancelled was never parked")
}

// cancelOnce blocks a goroutine in Read and cancels its context; the context moves the read
// deadline into the past, which is Go's way to cancel a read.
func cancelOnce(conn net.Conn, stacks []byte) (int64, error) {
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	moved := make(chan struct{})
	context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		close(moved)
	})
	type caught struct {
		at  time.Time
		err error
	}
	done := make(chan caught, 1)
	go func() {
		_, err := conn.Read(make([]byte, messageSize))
		done <- caught{time.Now(), err}
	}()
	if err := waitUntilParked(stacks); err != nil {
		cancel()
		return 0, err
	}
	for until := time.Now().Add(asleepFor); time.Now().Before(until); {
	}
	start := time.Now()
	cancel()
	end := <-done
	<-moved
	if !errors.Is(end.err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("the read ended with %v", end.err)
	}
	return end.at.Sub(start).Nanoseconds(), nil
}

func cancelLatency(address string, length time.Duration, _ int) (result, error) {
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	stacks := make([]byte, 1<<16)
	var latencies []int64
	for end := time.Now().Add(length); time.Now().Before(end); {
		latency, err := cancelOnce(conn, stacks)
		if err != nil {
			return result{}, err
		}
		latencies = append(latencies, latency)
	}
	return result{LatenciesNs: latencies}, nil
}

// anonymousBytes is the resident anonymous memory of this process after garbage collection.
func anonymousBytes() (int64, error) {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		return 0, err
	}
	for _, line := range bytes.Split(text, []byte("\n")) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == "Anonymous:" {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("no Anonymous: in smaps_rollup")
}

func idleMemory(address string, _ time.Duration, count int) (result, error) {
	return holdConnections(openPlain(address), count, func(net.Conn) {})
}

func openPlain(address string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return dialer.Dial("tcp", address) }
}

// allowedConnections is how many of count fit, with the limit on descriptors raised.
func allowedConnections(count int) (int, error) {
	limit, err := raiseDescriptorLimit()
	if count > limit-spareDescriptors {
		count = limit - spareDescriptors
	}
	return count, err
}

// holdConnections calls waitOn for each connection, after an exchange on it.
func holdConnections(open func() (net.Conn, error), count int, waitOn func(net.Conn)) (result, error) {
	count, err := allowedConnections(count)
	if err != nil {
		return result{}, err
	}
	kept := make([]net.Conn, count)
	reply := make([]byte, messageSize)
	var before int64
	for i := range kept {
		if i == memoryWarmUp {
			if before, err = anonymousBytes(); err != nil {
				return result{}, err
			}
		}
		if kept[i], err = open(); err != nil {
			return result{}, err
		}
		if err = exchange(kept[i], reply); err != nil {
			return result{}, err
		}
		if err = kept[i].SetDeadline(time.Time{}); err != nil {
			return result{}, err
		}
		waitOn(kept[i])
	}
	after, err := anonymousBytes()
	runtime.KeepAlive(kept)
	return result{Connections: count - memoryWarmUp, Bytes: after - before}, err
}
