package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"
)

const (
	serverName = "localhost"
	mebibyte   = 1024 * 1024
	bulkCall   = 256 * 1024
	// The peer's word on how the handshake was.
	full, resumed = 'f', 'r'
)

// cpuTime is what this process has had of its CPUs.
func cpuTime() (int64, error) {
	const clockProcessCPUTimeID = 2
	var now syscall.Timespec
	_, _, failed := syscall.Syscall(
		syscall.SYS_CLOCK_GETTIME, clockProcessCPUTimeID, uintptr(unsafe.Pointer(&now)), 0)
	if failed != 0 {
		return 0, failed
	}
	return now.Nano(), nil
}

func tlsFile(name string) string {
	return filepath.Join(os.Getenv("BENCH_TLS"), name)
}

// clientConfig offers X25519 alone, which is what the peer takes.
func clientConfig() (*tls.Config, error) {
	pem, err := os.ReadFile(tlsFile("ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca.pem holds no certificate")
	}
	return &tls.Config{
		RootCAs:          roots,
		ServerName:       serverName,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

func dialTLS(address string, config *tls.Config) (*tls.Conn, error) {
	return tls.DialWithDialer(&dialer, "tcp", address, config)
}

// shakeHands fails unless the peer says what is wanted (0: anything).
func shakeHands(address string, config *tls.Config, wanted byte) error {
	conn, err := dialTLS(address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	var said [1]byte
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, said[:]); err != nil {
		return err
	}
	if wanted != 0 && said[0] != wanted {
		return fmt.Errorf("the peer says that the handshake was %q, not %q", said[0], wanted)
	}
	return nil
}

func tlsHandshake(address string, length time.Duration, _ int) (result, error) {
	config, err := clientConfig()
	if err != nil {
		return result{}, err
	}
	return rate(length, func() error { return shakeHands(address, config, full) })
}

func tlsResume(address string, length time.Duration, _ int) (result, error) {
	config, err := clientConfig()
	if err != nil {
		return result{}, err
	}
	config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	if err := shakeHands(address, config, 0); err != nil {
		return result{}, err
	}
	return rate(length, func() error { return shakeHands(address, config, resumed) })
}

// onConnection measures operations on one connection. It is not closed in an orderly way: a peer
// that only sends, or only receives, would not hear of it.
func onConnection(address string, measure func(net.Conn) (result, error)) (result, error) {
	config, err := clientConfig()
	if err != nil {
		return result{}, err
	}
	conn, err := dialTLS(address, config)
	if err != nil {
		return result{}, err
	}
	defer conn.NetConn().Close()
	return measure(conn)
}

func tlsRequestReply(address string, length time.Duration, _ int) (result, error) {
	return onConnection(address, func(conn net.Conn) (result, error) {
		reply := make([]byte, messageSize)
		return rate(length, func() error { return exchange(conn, reply) })
	})
}

func tlsReceive(address string, length time.Duration, _ int) (result, error) {
	return onConnection(address, func(conn net.Conn) (result, error) {
		buf := make([]byte, bulkCall)
		have := 0
		return rateOf(length, 1, func() error {
			for have < mebibyte {
				if err := conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
					return err
				}
				n, err := conn.Read(buf)
				if err != nil {
					return err
				}
				have += n
			}
			have -= mebibyte
			return nil
		})
	})
}

func tlsSend(address string, length time.Duration, _ int) (result, error) {
	return onConnection(address, func(conn net.Conn) (result, error) {
		data := bytes.Repeat([]byte("x"), bulkCall)
		return rateOf(length, 1, func() error {
			for done := 0; done < mebibyte; done += bulkCall {
				if err := conn.SetWriteDeadline(time.Now().Add(deadline)); err != nil {
					return err
				}
				if _, err := conn.Write(data); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func tlsIdleMemory(address string, _ time.Duration, count int) (result, error) {
	config, err := clientConfig()
	if err != nil {
		return result{}, err
	}
	open := func() (net.Conn, error) { return dialTLS(address, config) }
	return holdConnections(open, count, func(net.Conn) {})
}

// greet is a server's part in tls_accept: the handshake takes place within Write.
func greet(conn net.Conn) {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		return
	}
	conn.Write([]byte("."))
}

// tlsCrowd is the other process (peers/tls_crowd.c), and the port of the server for it.
func tlsCrowd(address string, handle func(net.Conn)) (int, error) {
	if crowd.conn != nil {
		return crowd.port, nil
	}
	certificate, err := tls.LoadX509KeyPair(tlsFile("server.pem"), tlsFile("server.key"))
	if err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	serveListener(tls.NewListener(listener, config), handle)
	if crowd.conn, err = net.Dial("tcp", address); err != nil {
		return 0, err
	}
	crowd.answers = bufio.NewReader(crowd.conn)
	crowd.port = listener.Addr().(*net.TCPAddr).Port
	return crowd.port, nil
}

func tlsAccept(address string, length time.Duration, _ int) (result, error) {
	port, err := tlsCrowd(address, greet)
	if err != nil {
		return result{}, err
	}
	start, err := cpuTime()
	if err != nil {
		return result{}, err
	}
	answer, err := command("accept %d %f", port, length.Seconds())
	if err != nil {
		return result{}, err
	}
	end, err := cpuTime()
	answer.CPUNs = end - start
	return answer, err
}

func tlsIdleMemoryServer(address string, _ time.Duration, count int) (result, error) {
	count, err := allowedConnections(count)
	if err != nil {
		return result{}, err
	}
	port, err := tlsCrowd(address, echo)
	if err != nil {
		return result{}, err
	}
	if _, err = command("open %d %d", port, memoryWarmUp); err != nil {
		return result{}, err
	}
	before, err := anonymousBytes()
	if err != nil {
		return result{}, err
	}
	if _, err = command("open %d %d", port, count-memoryWarmUp); err != nil {
		return result{}, err
	}
	after, err := anonymousBytes()
	return result{Connections: count - memoryWarmUp, Bytes: after - before}, err
}
