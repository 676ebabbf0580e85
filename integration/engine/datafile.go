// Package engine plays Tinybird's engine for the integration tests: it reads a project's .datasource and .pipe files, renders
// the template language that their SQL is written in, and has ClickHouse run what comes of it.
//
// It reads Tinybird's documents on its own and shares no code with the audit of pipes, so that a misreading in one of
// them shows in the other.
package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// Datasource is a table.
type Datasource struct {
	Name    string
	Columns []Column
	Sorting string // the sorting key, as SQL
}

// Column is one column of a table.
type Column struct{ Name, Type string }

// Node is one step of a pipe.
type Node struct {
	Name string
	SQL  string // as its author wrote it
}

// Pipe is a chain of nodes whose last is the endpoint.
type Pipe struct {
	Name  string
	Nodes []Node

	templates []template
}

// Project is what a directory of files defines.
type Project struct {
	Datasources []Datasource
	Pipes       []Pipe
}

// Load reads the files of a project: datasources/*.datasource and endpoints/*.pipe.
func Load(files fs.FS) (*Project, error) {
	p := new(Project)
	err := each(files, "datasources/*.datasource", func(name, text string) error {
		d, err := parseDatasource(name, text)
		p.Datasources = append(p.Datasources, d)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = each(files, "endpoints/*.pipe", func(name, text string) error {
		pipe, err := parsePipe(name, text)
		p.Pipes = append(p.Pipes, pipe)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(p.Datasources) == 0 || len(p.Pipes) == 0 {
		return nil, errors.New("the project has no data source, or no pipe")
	}
	return p, nil
}

func each(files fs.FS, pattern string, read func(name, text string) error) error {
	paths, err := fs.Glob(files, pattern)
	if err != nil {
		return fmt.Errorf("%s: %w", pattern, err)
	}
	for _, file := range paths {
		text, err := fs.ReadFile(files, file)
		if err != nil {
			return fmt.Errorf("project: %w", err)
		}
		base := path.Base(file)
		if err := read(strings.TrimSuffix(base, path.Ext(base)), string(text)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// instruction is one of a data file: a word in capitals and what follows it, on the line or indented below.
type instruction struct{ name, value string }

var instructionLine = regexp.MustCompile(`^([A-Z][A-Z_]*)(?:\s+(.*))?$`)

// instructions splits a data file. Comments begin with # at the start of a line.
func instructions(text string) []instruction {
	var list []instruction
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		m := instructionLine.FindStringSubmatch(line)
		switch {
		case m != nil:
			list = append(list, instruction{name: m[1], value: strings.TrimSpace(m[2])})
		case strings.HasPrefix(line, "#") || len(list) == 0:
		default:
			last := &list[len(list)-1]
			last.value += "\n" + strings.TrimPrefix(line, "    ")
		}
	}
	for i := range list {
		// ">" says that what follows is indented below.
		list[i].value = strings.TrimSpace(strings.TrimPrefix(list[i].value, ">"))
	}
	return list
}

var columnLine = regexp.MustCompile("^`?([A-Za-z_][A-Za-z0-9_]*)`?\\s+([^`]+?)\\s*(?:`json:\\$\\.([A-Za-z_][A-Za-z0-9_]*)`)?\\s*,?$")

func parseDatasource(name, text string) (Datasource, error) {
	d := Datasource{Name: name}
	for _, i := range instructions(text) {
		switch i.name {
		case "SCHEMA":
			for line := range strings.Lines(i.value) {
				line = strings.TrimSpace(line)
				if line == "" {
					continue
				}
				m := columnLine.FindStringSubmatch(line)
				if len(m) < 4 || m[3] != "" && m[3] != m[1] {
					return d, fmt.Errorf("the column %q is not understood here", line)
				}
				d.Columns = append(d.Columns, Column{Name: m[1], Type: m[2]})
			}
		case "ENGINE_SORTING_KEY":
			d.Sorting = strings.Trim(i.value, `"`)
		case "DESCRIPTION", "ENGINE", "ENGINE_PARTITION_KEY", "TOKEN":
		default:
			return d, fmt.Errorf("%s is not understood here", i.name)
		}
	}
	if len(d.Columns) == 0 {
		return d, errors.New("no SCHEMA")
	}
	return d, nil
}

// create is the statement that makes the table.
func (d *Datasource) create() string {
	columns := make([]string, len(d.Columns))
	for i, c := range d.Columns {
		columns[i] = "`" + c.Name + "` " + c.Type
	}
	sorting := d.Sorting
	if sorting == "" {
		sorting = "tuple()"
	}
	return "CREATE TABLE `" + d.Name + "` (" + strings.Join(columns, ", ") + ") ENGINE = MergeTree ORDER BY (" + sorting + ")"
}

func parsePipe(name, text string) (Pipe, error) {
	p := Pipe{Name: name}
	for _, i := range instructions(text) {
		switch i.name {
		case "NODE":
			p.Nodes = append(p.Nodes, Node{Name: i.value})
		case "SQL":
			if len(p.Nodes) == 0 {
				return p, errors.New("SQL before the first NODE")
			}
			p.Nodes[len(p.Nodes)-1].SQL = i.value
		case "DESCRIPTION", "TOKEN":
		case "TYPE":
			if !strings.EqualFold(i.value, "endpoint") {
				return p, fmt.Errorf("TYPE %s is not understood here", i.value)
			}
		default:
			return p, fmt.Errorf("%s is not understood here", i.name)
		}
	}
	for _, n := range p.Nodes {
		t, err := parseTemplate(n.SQL)
		if err != nil {
			return p, fmt.Errorf("node %s: %w", n.Name, err)
		}
		p.templates = append(p.templates, t)
	}
	if len(p.Nodes) == 0 {
		return p, errors.New("no NODE")
	}
	return p, nil
}

// Render returns the pipe's SQL for parameters: its nodes as common table expressions, the last one as the query.
func (p *Pipe) Render(params map[string]string) (string, error) {
	var b strings.Builder
	for i, t := range p.templates {
		sql, err := t.render(params)
		if err != nil {
			return "", err
		}
		if i == len(p.templates)-1 {
			b.WriteString(sql)
			break
		}
		joint := ",\n"
		if i == 0 {
			joint = "WITH "
		}
		b.WriteString(joint + "`" + p.Nodes[i].Name + "` AS (" + sql + "\n)\n")
	}
	return b.String(), nil
}

// Schema is the statements that make the project's tables.
func (p *Project) Schema() []string {
	statements := make([]string, len(p.Datasources))
	for i := range p.Datasources {
		statements[i] = p.Datasources[i].create()
	}
	return statements
}
