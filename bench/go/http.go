package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const body = "hello, world\n"

func serveHTTP() (int, error) {
	if _, err := raiseDescriptorLimit(); err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	go newHTTPServer().Serve(listener)
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func newHTTPServer() *http.Server {
	return &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, body)
	})}
}

// serveOnDescriptor serves a listening socket that it was given, until SIGTERM: bench/restarts.py.
func serveOnDescriptor(number string) error {
	fd, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
	if err != nil {
		return err
	}
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := newHTTPServer()
	go server.Serve(listener)
	<-told.Done()
	ending, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return server.Shutdown(ending)
}

func withHTTPCrowd(name string) work {
	return func(address string, length time.Duration, count int) (result, error) {
		if crowd.conn == nil {
			if err := meetCrowd(address, serveHTTP); err != nil {
				return result{}, err
			}
			if _, err := command("open %d %d", crowd.port, count); err != nil {
				return result{}, err
			}
		}
		cpu, err := cpuTime()
		if err != nil {
			return result{}, err
		}
		answer, err := command("%s %f", name, length.Seconds())
		if err != nil {
			return result{}, err
		}
		now, err := cpuTime()
		answer.CPUNs = now - cpu
		return answer, err
	}
}

func httpIdleMemory(address string, _ time.Duration, count int) (result, error) {
	count, err := allowedConnections(count)
	if err != nil {
		return result{}, err
	}
	if err := meetCrowd(address, serveHTTP); err != nil {
		return result{}, err
	}
	if _, err := command("open %d %d", crowd.port, memoryWarmUp); err != nil {
		return result{}, err
	}
	before, err := anonymousBytes()
	if err != nil {
		return result{}, err
	}
	if _, err := command("open %d %d", crowd.port, count-memoryWarmUp); err != nil {
		return result{}, err
	}
	after, err := anonymousBytes()
	return result{Connections: count - memoryWarmUp, Bytes: after - before}, err
}
