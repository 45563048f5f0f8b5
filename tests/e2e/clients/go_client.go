// SPDX-License-Identifier: Apache-2.0

// go_client serve PORT | get HOST:PORT HOST:ECHOPORT: net/http at both ends (Go's listeners are MPTCP), and net with a half-close.
// go_client faults HOST: net/http against the servers of probe_server.py that fail.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(port string) {
	http.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		digest := sha256.New()
		length, err := io.Copy(digest, r.Body)
		fmt.Fprintf(w, "%s %d %x %v\n", r.Method, length, digest.Sum(nil), err)
	})
	http.HandleFunc("/flush", func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < 50; i++ {
			fmt.Fprintf(w, "chunk %d\n", i)
			w.(http.Flusher).Flush()
		}
	})
	listener, err := net.Listen("tcp", ":"+port)
	fail(err)
	fmt.Println("ready")
	fail(http.Serve(listener, nil))
}

func ask(client *http.Client, method, url string, body []byte) string {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	fail(err)
	answer, err := client.Do(request)
	fail(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	fail(err)
	return fmt.Sprint(answer.Status, " ", answer.TransferEncoding, " ", string(text))
}

func echo(address string, data []byte) {
	connection, err := net.Dial("tcp", address)
	fail(err)
	go func() {
		_, err := connection.Write(data)
		fail(err)
		fail(connection.(*net.TCPConn).CloseWrite())
	}()
	answer, err := io.ReadAll(connection)
	fail(err)
	fmt.Println("echo", connection.RemoteAddr(), len(answer), bytes.Equal(answer, data))
	connection.Close()
}

func faults(host string) {
	for _, fault := range [][2]string{{"reset", "7211"}, {"cut", "7212"}, {"refused", "9"}} {
		var body []byte
		answer, err := http.Get("http://" + net.JoinHostPort(host, fault[1]) + "/")
		if err == nil {
			body, err = io.ReadAll(answer.Body)
		}
		fmt.Println(fault[0], len(body), err)
	}
}

func main() {
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2])
		return
	case "faults":
		faults(os.Args[2])
		return
	}
	base := "http://" + os.Args[2]
	client := &http.Client{}
	for i := 0; i < 100; i++ {
		fmt.Print(ask(client, "GET", base+"/sum", nil))
	}
	fmt.Print(ask(client, "GET", base+"/flush", nil))
	fmt.Print(ask(client, "POST", base+"/sum", bytes.Repeat([]byte("go"), 10_000_000)))
	answers := make([]string, 50)
	var group sync.WaitGroup
	for i := range answers {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			answers[i] = ask(client, "POST", base+"/sum", bytes.Repeat([]byte{byte(i)}, 100_000))
		}(i)
	}
	group.Wait()
	for _, answer := range answers {
		fmt.Print(answer)
	}
	echo(os.Args[3], bytes.Repeat([]byte("0123456789"), 300_000))
}
