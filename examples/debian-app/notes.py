"""Notes, kept in SQLite: GET / lists them, POST / adds the request's body."""

import sqlite3

from flask import Flask, jsonify, request


def create(path):
    app = Flask(__name__)

    def database():
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL)")
        return connection

    @app.get("/")
    def listing():
        with database() as connection:
            return jsonify([text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")])

    @app.post("/")
    def add():
        with database() as connection:
            connection.execute("INSERT INTO notes VALUES (?)", (request.get_data(as_text=True),))
        return "", 201

    return app
