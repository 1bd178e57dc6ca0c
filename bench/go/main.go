// The Go worker of the bench: `go_worker WORK HOST PORT` prints one line {"ready": version}, then
// for each line "SECONDS COUNT" on stdin measures one slice and prints one line of JSON, as the
// Python and C workers do. What the works measure stands in bench/works/.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"
)

const (
	deadline        = 5 * time.Second
	messageSize     = 64
	opsPerClockRead = 16
)

type result struct {
	Ops         int     `json:"ops,omitempty"`
	Ns          int64   `json:"ns,omitempty"`
	CPUNs       int64   `json:"cpu_ns,omitempty"`
	LatenciesNs []int64 `json:"latencies_ns,omitempty"`
	Connections int     `json:"connections,omitempty"`
	Bytes       int64   `json:"bytes,omitempty"`
	Least       *int    `json:"least,omitempty"` // 0 is a result
	Most        int     `json:"most,omitempty"`
}

type work func(address string, length time.Duration, count int) (result, error)

var works = map[string]work{
	"connect_close":       connectClose,
	"request_reply":       requestReply,
	"cancel_latency":      cancelLatency,
	"idle_memory":         idleMemory,
	"idle_memory_awaited": idleMemoryAwaited,
	"lines":               lines,
	"frames_1k":           frames1k,
	"frames_1m":           frames1m,
	"crowd_echo":          withCrowd("echo"),
	"crowd_churn":         withCrowd("churn"),

	"http_parsed":       withHTTPCrowd("ask"),
	"http_parsed_churn": withHTTPCrowd("churn"),
	"http_idle_memory":  httpIdleMemory,

	"pool_checkout":   poolCheckout,
	"pool_checkout_8": poolCheckoutThreads,
	"pool_fairness":   poolFairness,

	"tls_handshake":          tlsHandshake,
	"tls_resume":             tlsResume,
	"tls_request_reply":      tlsRequestReply,
	"tls_receive":            tlsReceive,
	"tls_send":               tlsSend,
	"tls_accept":             tlsAccept,
	"tls_idle_memory":        tlsIdleMemory,
	"tls_idle_memory_server": tlsIdleMemoryServer,
}

func say(message any) {
	text, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", text)
}

func rate(length time.Duration, operation func() error) (result, error) {
	return rateOf(length, opsPerClockRead, operation)
}

// rateOf reads the clock once in so many operations.
func rateOf(length time.Duration, perClockRead int, operation func() error) (result, error) {
	cpu, err := cpuTime()
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	for ops := 0; ; {
		for i := 0; i < perClockRead; i++ {
			if err := operation(); err != nil {
				return result{}, err
			}
		}
		ops += perClockRead
		if elapsed := time.Since(start); elapsed >= length {
			now, err := cpuTime()
			return result{Ops: ops, Ns: elapsed.Nanoseconds(), CPUNs: now - cpu}, err
		}
	}
}

func serve(run work, address string) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var seconds float64
		var count int
		if _, err := fmt.Sscanf(lines.Text(), "%g %d", &seconds, &count); err != nil {
			return err
		}
		runtime.GC()
		answer, err := run(address, time.Duration(seconds*float64(time.Second)), count)
		if err != nil {
			return err
		}
		say(answer)
	}
	return nil
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "http_on_descriptor" {
		if err := serveOnDescriptor(os.Args[2]); err != nil {
			panic(err)
		}
		return
	}
	if len(os.Args) != 4 {
		say(map[string]string{"error": "usage: go_worker WORK HOST PORT"})
		os.Exit(2)
	}
	run, known := works[os.Args[1]]
	if !known {
		say(map[string]string{"skip": "the Go worker has no such work"})
		return
	}
	say(map[string]string{"ready": runtime.Version()})
	if err := serve(run, net.JoinHostPort(os.Args[2], os.Args[3])); err != nil {
		say(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
}
