// SPDX-License-Identifier: Apache-2.0

// http_pair serve ADDRESS: answers each request with what it was sent.
// http_pair get URL COUNT: posts COUNT times over one connection and checks every byte.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fail(err)
	}
	fmt.Println("listening")
	fail(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Write(body)
	})))
}

func get(url string, count int) {
	body := bytes.Repeat([]byte("0123456789"), 100000)
	total := 0
	for i := 0; i < count; i++ {
		response, err := http.Post(url, "text/plain", bytes.NewReader(body))
		if err != nil {
			fail(err)
		}
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			fail(err)
		}
		if !bytes.Equal(got, body) {
			fail(fmt.Errorf("answer %d: %d bytes, not those that were sent", i, len(got)))
		}
		total += len(got)
	}
	fmt.Printf("%d answers, %d bytes\n", count, total)
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		serve(os.Args[2])
		return
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		fail(err)
	}
	get(os.Args[2], count)
}
