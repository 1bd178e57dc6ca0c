package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

const messagesPerClockRead = 256

// flow opens a connection and calls take(), which takes one message, for so long.
func flow(address string, length time.Duration, start func(conn net.Conn) func() error) (result, error) {
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	take := start(conn)
	begin := time.Now()
	for ops := 0; ; {
		if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
			return result{}, err
		}
		for i := 0; i < messagesPerClockRead; i++ {
			if err := take(); err != nil {
				return result{}, err
			}
		}
		ops += messagesPerClockRead
		if elapsed := time.Since(begin); elapsed >= length {
			return result{Ops: ops, Ns: elapsed.Nanoseconds()}, nil
		}
	}
}

func lines(address string, length time.Duration, _ int) (result, error) {
	return flow(address, length, func(conn net.Conn) func() error {
		scanner := bufio.NewScanner(conn)
		return func() error {
			if !scanner.Scan() {
				return errors.New("the lines ended")
			}
			return nil
		}
	})
}

func frames(address string, length time.Duration, _ int) (result, error) {
	return flow(address, length, func(conn net.Conn) func() error {
		reader := bufio.NewReaderSize(conn, 65536)
		header := make([]byte, 4)
		return func() error {
			if _, err := io.ReadFull(reader, header); err != nil {
				return err
			}
			frame := make([]byte, binary.BigEndian.Uint32(header))
			_, err := io.ReadFull(reader, frame)
			return err
		}
	})
}
