package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// Project is a Tinybird project: all .datasource and .pipe files of a directory and of those in it.
type Project struct {
	Datasources map[string]*Datasource
	pipes       map[string]*Pipe
	templates   map[*Node]*Template
}

// LoadProject reads a project.
func LoadProject(dir fs.FS) (*Project, error) {
	p := &Project{Datasources: map[string]*Datasource{}, pipes: map[string]*Pipe{}, templates: map[*Node]*Template{}}
	err := fs.WalkDir(dir, ".", func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		ext := path.Ext(file)
		if ext != ".datasource" && ext != ".pipe" {
			return nil
		}
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if err := p.add(strings.TrimSuffix(path.Base(file), ext), ext, string(text)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the Tinybird project: %w", err)
	}
	return p, nil
}

func (p *Project) add(name, ext, text string) error {
	if p.Datasources[name] != nil || p.pipes[name] != nil {
		return fmt.Errorf("%s is there twice", name)
	}
	if ext == ".datasource" {
		d, err := ParseDatasource(name, text)
		p.Datasources[name] = d
		return err
	}
	pipe, err := ParsePipe(name, text)
	if err != nil {
		return err
	}
	p.pipes[name] = pipe
	for n := range pipe.Nodes {
		node := &pipe.Nodes[n]
		if p.templates[node], err = ParseTemplate(node.SQL); err != nil {
			return fmt.Errorf("node %s: %w", node.Name, err)
		}
	}
	return nil
}

// Pipes returns the pipes that have an endpoint, as devstack's API takes them.
func (p *Project) Pipes() []devstack.Pipe {
	var all []devstack.Pipe
	for _, name := range slices.Sorted(maps.Keys(p.pipes)) {
		pipe := p.pipes[name]
		if pipe.node(KindEndpoint) == nil {
			continue
		}
		id := sha256.Sum256([]byte(name))
		d := devstack.Pipe{Name: name, ID: "t_" + hex.EncodeToString(id[:16])}
		for _, n := range pipe.Nodes {
			d.Nodes = append(d.Nodes, devstack.Node{Name: n.Name, SQL: n.SQL, Endpoint: n.Kind == KindEndpoint})
		}
		all = append(all, d)
	}
	return all
}

// createStatements make the tables.
func (p *Project) createStatements() []string {
	all := make([]string, 0, len(p.Datasources))
	for _, name := range slices.Sorted(maps.Keys(p.Datasources)) {
		d := p.Datasources[name]
		var cols []string
		for _, c := range d.Columns {
			col := "`" + c.Name + "` " + c.Type
			if c.Default != "" {
				col += " DEFAULT " + c.Default
			}
			cols = append(cols, col)
		}
		create := "CREATE TABLE `" + name + "` (" + strings.Join(cols, ", ") + ") ENGINE = " + d.Engine
		if d.PartitionKey != "" {
			create += " PARTITION BY " + d.PartitionKey
		}
		all = append(all, create+" ORDER BY ("+d.SortingKey+")")
	}
	return all
}

// copyStatements fill the tables, by the columns' names.
func (p *Project) copyStatements() ([]string, error) {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(p.pipes)) {
		n := p.pipes[name].node(KindCopy)
		if n == nil {
			continue
		}
		d := p.Datasources[n.Target]
		if d == nil {
			return nil, fmt.Errorf("pipe %s fills %s, which is no data source", name, n.Target)
		}
		query, err := p.render(p.pipes[name], n, nil)
		if err != nil {
			return nil, fmt.Errorf("pipe %s: %w", name, err)
		}
		names := make([]string, len(d.Columns))
		for i, c := range d.Columns {
			names[i] = "`" + c.Name + "`"
		}
		list := strings.Join(names, ", ")
		all = append(all, "INSERT INTO `"+d.Name+"` ("+list+") SELECT "+list+" FROM (\n"+query+"\n)")
	}
	return all, nil
}

var errNoEndpoint = errors.New("there is no such endpoint")

// Statement is the SQL of a call.
func (p *Project) Statement(q devstack.Question) (string, error) {
	if q.Pipe == "" {
		return p.own(q)
	}
	pipe := p.pipes[q.Pipe]
	if pipe == nil || pipe.node(KindEndpoint) == nil {
		return "", fmt.Errorf("pipe %q: %w", q.Pipe, errNoEndpoint)
	}
	result, err := p.render(pipe, pipe.node(KindEndpoint), q.Params)
	if err != nil || q.SQL == "" {
		return result, err
	}
	statement, err := p.own(q)
	return with([]string{"_ AS (\n" + result + "\n)"}, statement), err
}

// own renders the SQL of the question itself.
func (p *Project) own(q devstack.Question) (string, error) {
	t, err := ParseTemplate(q.SQL)
	if err != nil {
		return "", err
	}
	return t.Render(q.Params)
}

// render makes one query of a node and of those before it that it needs. Only these are rendered: the others may require
// parameters that nobody gave.
func (p *Project) render(pipe *Pipe, last *Node, params map[string]string) (string, error) {
	query, err := p.templates[last].Render(params)
	if err != nil {
		return "", err
	}
	needed := query
	var before []string
	for _, n := range slices.Backward(pipe.Nodes) {
		if n.Name == last.Name || !mentions(needed, n.Name) {
			continue
		}
		step, err := p.templates[pipe.byName(n.Name)].Render(params)
		if err != nil {
			return "", err
		}
		needed += "\n" + step
		before = append(before, n.Name+" AS (\n"+step+"\n)")
	}
	slices.Reverse(before)
	return with(before, query), nil
}

func (p *Pipe) byName(name string) *Node {
	n := slices.IndexFunc(p.Nodes, func(n Node) bool { return n.Name == name })
	return &p.Nodes[n]
}

func mentions(query, name string) bool {
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`).MatchString(query)
}

var leadingWith = regexp.MustCompile(`(?i)^\s*WITH\s`)

// with puts named queries before another, which may have some of its own.
func with(named []string, query string) string {
	if len(named) == 0 {
		return query
	}
	head := "WITH " + strings.Join(named, ",\n")
	if own := leadingWith.FindString(query); own != "" {
		return head + ",\n" + query[len(own):]
	}
	return head + "\n" + query
}
