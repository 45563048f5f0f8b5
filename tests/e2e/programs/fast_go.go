// SPDX-License-Identifier: Apache-2.0

// fast_go serve PORT: HTTP; POST /echo sends the body back, POST /reset resets the connection.
// fast_go relay PORT HOST:PORT: copies bytes both ways with io.Copy, which splices.
// fast_go drive URL: keep-alive requests of random sizes for three seconds, each answer compared with what was sent;
// then one that is reset.
// fast_go files URL MEGABYTES: PUT and GET of files on one connection, then one PUT of that size.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	requests = 150
	pause    = 20 * time.Millisecond
	largest  = 200 << 10
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(port string) {
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	})
	http.HandleFunc("/reset", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		connection, _, err := http.NewResponseController(w).Hijack()
		fail(err)
		connection.(*net.TCPConn).SetLinger(0)
		connection.Close()
	})
	listener, err := net.Listen("tcp", ":"+port)
	fail(err)
	fmt.Println("ready")
	fail(http.Serve(listener, nil))
}

func pipe(from, to net.Conn) {
	io.Copy(to, from)
	to.(*net.TCPConn).CloseWrite()
}

func relay(port, destination string) {
	listener, err := net.Listen("tcp", ":"+port)
	fail(err)
	fmt.Println("ready")
	for {
		client, err := listener.Accept()
		fail(err)
		server, err := net.Dial("tcp", destination)
		fail(err)
		go pipe(client, server)
		go pipe(server, client)
	}
}

func ask(method, url string, body []byte) []byte {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	fail(err)
	answer, err := http.DefaultClient.Do(request)
	fail(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	fail(err)
	if answer.StatusCode/100 != 2 {
		fail(fmt.Errorf("%s %s: %s", method, url, answer.Status))
	}
	return text
}

func compare(what string, got, sent []byte) {
	if bytes.Equal(got, sent) {
		return
	}
	at := 0
	for at < len(got) && at < len(sent) && got[at] == sent[at] {
		at++
	}
	fail(fmt.Errorf("%s: %d bytes instead of %d, different from byte %d", what, len(got), len(sent), at))
}

func bodies(exchange func(number int, body []byte) []byte) {
	random := rand.New(rand.NewSource(1))
	all := sha256.New()
	total := 0
	for number := 0; number < requests; number++ {
		body := make([]byte, 1+random.Intn(largest))
		random.Read(body)
		answer := exchange(number, body)
		compare(fmt.Sprint("request ", number), answer, body)
		all.Write(answer)
		total += len(answer)
		time.Sleep(pause)
	}
	fmt.Printf("%d requests, %d bytes, %x\n", requests, total, all.Sum(nil))
}

// What a client hears of a connection that its server resets: an errno, or what a proxy makes of it.
func reset(url string) {
	answer, err := http.Post(url, "text/plain", bytes.NewReader(make([]byte, 1000)))
	var number syscall.Errno
	switch {
	case err == nil:
		fmt.Println("reset:", answer.Status)
	case errors.As(err, &number):
		fmt.Println("reset:", number)
	default:
		fmt.Println("reset:", errors.Unwrap(err))
	}
}

func files(url string, megabytes int) {
	bodies(func(number int, body []byte) []byte {
		file := fmt.Sprintf("%s/file%d", url, number)
		ask("PUT", file, body)
		return ask("GET", file, nil)
	})
	big := make([]byte, megabytes<<20)
	rand.New(rand.NewSource(2)).Read(big)
	ask("PUT", url+"/big", big)
	got := ask("GET", url+"/big", nil)
	compare("big", got, big)
	fmt.Printf("big %d %x\n", len(got), sha256.Sum256(got))
}

func main() {
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2])
	case "relay":
		relay(os.Args[2], os.Args[3])
	case "drive":
		bodies(func(_ int, body []byte) []byte { return ask("POST", os.Args[2]+"/echo", body) })
		reset(os.Args[2] + "/reset")
	case "files":
		megabytes, err := strconv.Atoi(os.Args[3])
		fail(err)
		files(os.Args[2], megabytes)
	}
}
