//go:build integration

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// workspace is one of Tinybird Local.
type workspace struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Token string `json:"token"`

	url string
}

// localClient waits longer than the edge does: a deployment takes a while.
var localClient = &http.Client{Timeout: 10 * patience}

// deployLocal deploys the project to Tinybird Local once, as its command line tool does, and runs the copies that fill it.
var deployLocal = sync.OnceValues(func() (workspace, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*patience)
	defer cancel()
	return deployTo(ctx, strings.TrimSuffix(os.Getenv(localURL), "/"))
})

// localURL is the variable that says where Tinybird Local is; without it the tests run on ClickHouse alone.
const localURL = "TINYBIRD_LOCAL_URL"

func deployTo(ctx context.Context, url string) (w workspace, err error) {
	var tokens struct {
		Admin     string `json:"admin_token"`
		Workspace string `json:"workspace_admin_token"`
	}
	if err := callLocal(ctx, http.MethodGet, url+"/tokens", "", "", nil, &tokens); err != nil {
		return w, err
	}
	var list struct {
		Workspaces []workspace `json:"workspaces"`
	}
	if err := callLocal(ctx, http.MethodGet, url+"/v1/user/workspaces?with_organization=true", tokens.Admin, "", nil, &list); err != nil {
		return w, err
	}
	for _, one := range list.Workspaces {
		if one.Token == tokens.Workspace {
			w = one
		}
	}
	if w.ID == "" {
		return w, errors.New("none of the workspaces of Tinybird Local has the token that /tokens shows")
	}
	w.url = url
	body, contentType, err := projectForm()
	if err != nil {
		return w, err
	}
	var deployed struct {
		Result string `json:"result"`
	}
	if err := callLocal(ctx, http.MethodPost, url+"/v1/deploy?auto_promote=true", w.Token, contentType, body, &deployed); err != nil {
		return w, err
	}
	if deployed.Result != "success" && deployed.Result != "no_changes" {
		return w, fmt.Errorf("the deployment ended with %q", deployed.Result)
	}
	return w, errors.Join(w.live(ctx), w.copy(ctx, "fill_organizations"), w.copy(ctx, "fill_events"))
}

// live waits until the deployment is in use: until then its pipes are not there.
func (w workspace) live(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		err := callLocal(ctx, http.MethodGet, w.url+"/v0/pipes/search_events", w.Token, "", nil, nil)
		return err == nil, nil
	})
}

// copy runs a pipe that fills a data source, and waits for its end.
func (w workspace) copy(ctx context.Context, pipe string) error {
	var job struct {
		Job struct {
			ID string `json:"job_id"`
		} `json:"job"`
	}
	if err := callLocal(ctx, http.MethodPost, w.url+"/v0/pipes/"+pipe+"/copy", w.Token, "", nil, &job); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		var state struct {
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		if err := callLocal(ctx, http.MethodGet, w.url+"/v0/jobs/"+job.Job.ID, w.Token, "", nil, &state); err != nil {
			return false, err
		}
		if state.Status == "error" {
			return false, fmt.Errorf("copy %s: %s", pipe, state.Error)
		}
		return state.Status == "done", nil
	})
}

func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// projectForm is all files of the project, as a deployment takes them.
func projectForm() (body io.Reader, contentType string, err error) {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	for _, pattern := range []string{"datasources/*.datasource", "copies/*.pipe", "endpoints/*.pipe"} {
		files, err := filepath.Glob(filepath.Join("tinybird", pattern))
		if err != nil || len(files) == 0 {
			return nil, "", fmt.Errorf("%s: no files: %w", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, "", err
			}
			part, err := form.CreateFormFile("data_project://", filepath.Base(file))
			if err != nil {
				return nil, "", err
			}
			if _, err := part.Write(text); err != nil {
				return nil, "", err
			}
		}
	}
	return &b, form.FormDataContentType(), form.Close()
}

func callLocal(ctx context.Context, method, url, token, contentType string, body io.Reader, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := localClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: status %d: %.500s", method, url, resp.StatusCode, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}
