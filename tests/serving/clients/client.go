// client URL COUNT [CA]: Go's net/http asks so many times, eight at once, and keeps connections.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
)

func transport(args []string) *http.Transport {
	made := &http.Transport{MaxIdleConnsPerHost: 8, MaxConnsPerHost: 8}
	if len(args) > 3 {
		text, err := os.ReadFile(args[3])
		if err != nil {
			panic(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(text)
		made.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "localhost"}
	}
	return made
}

func main() {
	client := http.Client{Transport: transport(os.Args)}
	count, _ := strconv.Atoi(os.Args[2])
	var all sync.WaitGroup
	bodies := make([]string, count)
	for i := range bodies {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			answer, err := client.Get(os.Args[1])
			if err != nil {
				bodies[i] = err.Error() + "\n"
				return
			}
			defer answer.Body.Close()
			body, _ := io.ReadAll(answer.Body)
			bodies[i] = string(body)
		}(i)
	}
	all.Wait()
	for _, body := range bodies {
		fmt.Print(body)
	}
}
