package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"time"
)

// The clock is read once in so many messages that stream in.
const (
	linesPerClockRead   = 4096
	smallPerClockRead   = 512
	largePerClockRead   = 4
	bufferOfReader      = 65536
	sizeOfLengthOfFrame = 4
)

// stream calls take, which takes so many messages, until the time is over.
func stream(address string, length time.Duration, perClockRead int, take func(net.Conn) func() error) (result, error) {
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return result{}, err
	}
	defer conn.Close()
	return rateOf(length, perClockRead, take(conn))
}

func lines(address string, length time.Duration, _ int) (result, error) {
	return stream(address, length, linesPerClockRead, func(conn net.Conn) func() error {
		scanner := bufio.NewScanner(conn)
		scanner.Buffer(make([]byte, bufferOfReader), bufferOfReader)
		return func() error {
			if scanner.Scan() {
				return nil
			}
			if err := scanner.Err(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}
	})
}

// frames makes a new slice for each frame, as the others make a new object.
func frames(address string, length time.Duration, perClockRead int) (result, error) {
	return stream(address, length, perClockRead, func(conn net.Conn) func() error {
		reader := bufio.NewReaderSize(conn, bufferOfReader)
		var header [sizeOfLengthOfFrame]byte
		return func() error {
			if _, err := io.ReadFull(reader, header[:]); err != nil {
				return err
			}
			_, err := io.ReadFull(reader, make([]byte, binary.BigEndian.Uint32(header[:])))
			return err
		}
	})
}

func frames1k(address string, length time.Duration, _ int) (result, error) {
	return frames(address, length, smallPerClockRead)
}

func frames1m(address string, length time.Duration, _ int) (result, error) {
	return frames(address, length, largePerClockRead)
}
