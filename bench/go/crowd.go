package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"time"
)

const receiveSize = 4096

func echo(conn net.Conn) {
	defer conn.Close()
	for buf := make([]byte, receiveSize); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return
		}
	}
}

func serveListener(listener net.Listener, handle func(net.Conn)) {
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
}

func openServer() (int, error) {
	if _, err := raiseDescriptorLimit(); err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	serveListener(listener, echo)
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// crowd is the other process (peers/crowd.c); its connections stay from slice to slice.
var crowd struct {
	conn    net.Conn
	answers *bufio.Reader
	port    int // of the server for it, where it is asked for
}

func command(format string, values ...any) (answer result, err error) {
	if _, err = fmt.Fprintf(crowd.conn, format+"\n", values...); err != nil {
		return
	}
	line, err := crowd.answers.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &answer)
	}
	return
}

// meetCrowd opens a server for the crowd, and connects to the crowd.
func meetCrowd(address string, open func() (int, error)) (err error) {
	if crowd.port, err = open(); err != nil {
		return
	}
	if crowd.conn, err = net.Dial("tcp", address); err != nil {
		return
	}
	crowd.answers = bufio.NewReader(crowd.conn)
	return
}

func withCrowd(name string) work {
	return func(address string, length time.Duration, count int) (result, error) {
		if crowd.conn == nil {
			if err := meetCrowd(address, openServer); err != nil {
				return result{}, err
			}
			if _, err := command("open %d %d", crowd.port, count); err != nil {
				return result{}, err
			}
		}
		return command("%s %f", name, length.Seconds())
	}
}

func idleMemoryAwaited(address string, _ time.Duration, count int) (result, error) {
	return holdConnections(openPlain(address), count, func(conn net.Conn) {
		go conn.Read(make([]byte, receiveSize))
		runtime.Gosched()
	})
}
