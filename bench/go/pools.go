package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

const (
	poolThreads   = 8
	poolCrowd     = 20
	poolItems     = 2
	poolHold      = 10 * time.Millisecond
	poolPerClock  = 256
	poolNoTimeout = time.Minute
)

// emptyDriver's connections go nowhere: only database/sql is measured.
type emptyDriver struct{}

type emptyConn struct{}

var errEmpty = errors.New("an empty connection")

func (emptyDriver) Open(string) (driver.Conn, error)               { return &emptyConn{}, nil }
func (*emptyConn) Prepare(string) (driver.Stmt, error)             { return nil, errEmpty }
func (*emptyConn) Close() error                                    { return nil }
func (*emptyConn) Begin() (driver.Tx, error)                       { return nil, errEmpty }
func (d emptyDriver) Connect(context.Context) (driver.Conn, error) { return d.Open("") }
func (d emptyDriver) Driver() driver.Driver                        { return d }

func openPool(size int) *sql.DB {
	db := sql.OpenDB(emptyDriver{})
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db
}

func borrowAndReturn(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

func poolCheckout(_ string, length time.Duration, _ int) (result, error) {
	db := openPool(1)
	defer db.Close()
	ctx := context.Background()
	return rateOf(length, poolPerClock, func() error { return borrowAndReturn(ctx, db) })
}

func poolCheckoutThreads(_ string, length time.Duration, _ int) (result, error) {
	db := openPool(poolThreads)
	defer db.Close()
	ctx := context.Background()
	var over atomic.Bool
	var ops atomic.Int64
	var all sync.WaitGroup
	cpu, err := cpuTime()
	if err != nil {
		return result{}, err
	}
	start := time.Now()
	for i := 0; i < poolThreads; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for !over.Load() {
				for n := 0; n < poolPerClock; n++ {
					if borrowAndReturn(ctx, db) != nil {
						return
					}
				}
				ops.Add(poolPerClock)
			}
		}()
	}
	time.Sleep(length)
	over.Store(true)
	all.Wait()
	took := time.Since(start)
	now, err := cpuTime()
	return result{Ops: int(ops.Load()), Ns: took.Nanoseconds(), CPUNs: now - cpu}, err
}

func poolFairness(_ string, length time.Duration, _ int) (result, error) {
	db := openPool(poolItems)
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), length+poolNoTimeout)
	defer cancel()
	var over atomic.Bool
	var all sync.WaitGroup
	served := make([]int, poolCrowd)
	worst := make([]time.Duration, poolCrowd)
	for i := 0; i < poolCrowd; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			for !over.Load() {
				asked := time.Now()
				conn, err := db.Conn(ctx)
				if err != nil {
					return
				}
				if !over.Load() {
					served[i]++
					if wait := time.Since(asked); wait > worst[i] {
						worst[i] = wait
					}
					time.Sleep(poolHold)
				}
				conn.Close()
			}
		}(i)
	}
	time.Sleep(length)
	over.Store(true)
	all.Wait()
	least, most, longest := served[0], served[0], time.Duration(0)
	for i, n := range served {
		if n == 0 {
			worst[i] = length
		}
		if n < least {
			least = n
		}
		if n > most {
			most = n
		}
		if worst[i] > longest {
			longest = worst[i]
		}
	}
	return result{Least: &least, Most: most, LatenciesNs: []int64{longest.Nanoseconds()}}, nil
}
