// SPDX-License-Identifier: Apache-2.0

// server ADDRESS FIRST_PORT COUNT: as st_bench_server, with Go's net/http. Its answers are as long, byte for byte.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: server ADDRESS FIRST_PORT COUNT")
		os.Exit(2)
	}
	first, err := strconv.Atoi(os.Args[2])
	if err != nil {
		fail(err)
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fail(err)
	}
	body := []byte(strings.Repeat("0123456789abcdef", 8))
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Server", "st_bench")
		header.Set("Content-Type", "text/plain")
		header["Date"] = nil
		w.Write(body)
	})
	for port := first; port < first+count; port++ {
		listener, err := net.Listen("tcp", net.JoinHostPort(os.Args[1], strconv.Itoa(port)))
		if err != nil {
			fail(err)
		}
		go func() { fail(http.Serve(listener, answer)) }()
	}
	fmt.Println("ready")
	select {}
}
