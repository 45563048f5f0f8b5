// SPDX-License-Identifier: Apache-2.0

// Calls CNI plugins as container runtimes do: with libcni, or with containerd's go-cni.
//
//	runtime libcni|go-cni COMMANDS CONF_DIR BIN_DIR CACHE_DIR NETNS
//
// COMMANDS is a list as "add,check,status,gc,del". Prints a line of JSON for each: the command, its error, and what each plugin
// was given and printed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	gocni "github.com/containerd/go-cni"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const containerID = "c0ffee"

var podArgs = [][2]string{
	{"IgnoreUnknown", "1"},
	{"K8S_POD_NAMESPACE", "shop"},
	{"K8S_POD_NAME", "web-0"},
	{"K8S_POD_INFRA_CONTAINER_ID", containerID},
	{"K8S_POD_UID", "6a1c"},
}

// One run of a plugin.
type call struct {
	Plugin string          `json:"plugin"`
	Prev   json.RawMessage `json:"prev,omitempty"` // prevResult of its stdin
	Same   bool            `json:"same"`           // stdout is prevResult, byte for byte
	Stdout string          `json:"stdout"`
}

// Runs plugins and takes notes.
type recorder struct {
	invoke.RawExec
	version.PluginDecoder
	calls []call
}

func (r *recorder) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	stdout, err := r.RawExec.ExecPlugin(ctx, path, stdin, environ)
	var config struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if jsonErr := json.Unmarshal(stdin, &config); jsonErr != nil {
		return nil, jsonErr
	}
	r.calls = append(r.calls, call{
		Plugin: filepath.Base(path),
		Prev:   config.PrevResult,
		Same:   len(config.PrevResult) > 0 && string(stdout) == string(config.PrevResult),
		Stdout: string(stdout),
	})
	return stdout, err
}

type report struct {
	Command string `json:"command"`
	Error   string `json:"error"`
	Code    uint   `json:"code"` // of a CNI error
	Calls   []call `json:"calls"`
}

func say(command string, err error, calls []call) {
	line := report{Command: command, Calls: calls}
	if err != nil {
		line.Error = err.Error()
		var cniError *types.Error
		if errors.As(err, &cniError) {
			line.Code = cniError.Code
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}

func withLibcni(commands []string, confDir, binDir, cacheDir, netns string) error {
	list, err := libcni.LoadNetworkConf(confDir, "net")
	if err != nil {
		return err
	}
	ctx := context.Background()
	attachment := &libcni.RuntimeConf{ContainerID: containerID, NetNS: netns, IfName: "eth0", Args: podArgs}
	for _, command := range commands {
		exec := &recorder{RawExec: invoke.RawExec{Stderr: os.Stderr}}
		cni := libcni.NewCNIConfigWithCacheDir([]string{binDir}, cacheDir, exec)
		switch command {
		case "add":
			_, err = cni.AddNetworkList(ctx, list, attachment)
		case "check":
			err = cni.CheckNetworkList(ctx, list, attachment)
		case "del":
			err = cni.DelNetworkList(ctx, list, attachment)
		case "gc":
			err = cni.GCNetworkList(ctx, list, &libcni.GCArgs{
				ValidAttachments: []types.GCAttachment{{ContainerID: containerID, IfName: "eth0"}},
			})
		case "status":
			err = cni.GetStatusNetworkList(ctx, list)
		case "version":
			_, err = cni.ValidateNetworkList(ctx, list)
		default:
			return fmt.Errorf("no command %q", command)
		}
		say(command, err, exec.calls)
	}
	return nil
}

func withGoCNI(commands []string, confDir, binDir, netns string) error {
	cni, err := gocni.New(gocni.WithMinNetworkCount(1), gocni.WithPluginConfDir(confDir), gocni.WithPluginDir([]string{binDir}),
		gocni.WithInterfacePrefix("eth"), gocni.WithPluginMaxConfNum(1))
	if err != nil {
		return err
	}
	if err := cni.Load(gocni.WithDefaultConf); err != nil {
		return err
	}
	labels := map[string]string{}
	for _, pair := range podArgs {
		labels[pair[0]] = pair[1]
	}
	ctx := context.Background()
	for _, command := range commands {
		switch command {
		case "add":
			_, err = cni.Setup(ctx, containerID, netns, gocni.WithLabels(labels))
		case "check":
			err = cni.Check(ctx, containerID, netns, gocni.WithLabels(labels))
		case "del":
			err = cni.Remove(ctx, containerID, netns, gocni.WithLabels(labels))
		case "status":
			err = cni.Status()
		default:
			return fmt.Errorf("no command %q in go-cni", command)
		}
		say(command, err, nil)
	}
	return nil
}

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: runtime libcni|go-cni COMMANDS CONF_DIR BIN_DIR CACHE_DIR NETNS")
		os.Exit(2)
	}
	commands := strings.Split(os.Args[2], ",")
	var err error
	if os.Args[1] == "libcni" {
		err = withLibcni(commands, os.Args[3], os.Args[4], os.Args[5], os.Args[6])
	} else {
		err = withGoCNI(commands, os.Args[3], os.Args[4], os.Args[6])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
