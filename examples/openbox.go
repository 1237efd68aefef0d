// The agent API from Go with net/http. `openbox-sidecar run -- go run examples/openbox.go`
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// The sidecar is not asked through its own proxy, and by its socket where it has one.
var client = &http.Client{Transport: &http.Transport{Proxy: nil, DialContext: dial}}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	if path := os.Getenv("OPENBOX_SIDECAR_SOCKET"); path != "" {
		network, address = "unix", path
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// From the environment or, in a pod, from a file that is shared.
func token() (string, error) {
	if token, there := os.LookupEnv("OPENBOX_SIDECAR_TOKEN"); there {
		return token, nil
	}
	text, err := os.ReadFile(os.Getenv("OPENBOX_SIDECAR_TOKEN_FILE"))
	return strings.TrimSpace(string(text)), err
}

func call(method, path string, body []byte) (*http.Response, error) {
	bearer, err := token()
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(method, os.Getenv("OPENBOX_SIDECAR_URL")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+bearer)
	return client.Do(request)
}

func ask(path string, body map[string]any) (map[string]any, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	for {
		answer, err := call("POST", path, text)
		if err != nil {
			return nil, err
		}
		var said map[string]any
		err = json.NewDecoder(answer.Body).Decode(&said)
		answer.Body.Close()
		switch {
		case err != nil:
			return nil, err
		case answer.StatusCode == http.StatusAccepted: // a person must decide: the same request waits on
			continue
		case answer.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("%v", said["detail"])
		case said["verdict"] != "allow" && said["verdict"] != "constrain":
			return nil, fmt.Errorf("%v: %v", said["verdict"], said["reason"])
		}
		return said, nil
	}
}

// Any request at all, a line each: METHOD PATH JSON.
func each(lines *bufio.Scanner) error {
	for lines.Scan() {
		words := append(strings.SplitN(lines.Text(), " ", 3), "")
		answer, err := call(words[0], words[1], []byte(words[2]))
		if err != nil {
			return err
		}
		first := ""
		if !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
			first, _ = bufio.NewReader(answer.Body).ReadString('\n')
		}
		answer.Body.Close()
		fmt.Println(answer.StatusCode, strings.TrimSpace(first))
	}
	return lines.Err()
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-" {
		if err := each(bufio.NewScanner(os.Stdin)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	run := map[string]any{"workflow_id": "go", "run_id": fmt.Sprint(os.Getpid())}
	activity := map[string]any{"workflow_id": "go", "run_id": run["run_id"], "activity_id": "a1",
		"activity_type": "refund", "input": []any{map[string]any{"amount": 90}}}
	end := map[string]any{"workflow_id": "go", "run_id": run["run_id"], "output": map[string]any{"refunded": 90}}
	steps := []struct {
		path string
		body map[string]any
	}{
		{"/v1/workflows", run},
		{"/v1/activities?wait=55s", activity},
		{"/v1/activities/a1/complete", end},
		{fmt.Sprintf("/v1/workflows/go/runs/%v/complete", run["run_id"]), map[string]any{}},
	}
	for _, step := range steps {
		if _, err := ask(step.path, step.body); err != nil {
			fmt.Fprintln(os.Stderr, step.path, err)
			os.Exit(1)
		}
	}
	fmt.Println("done")
}
