"""What the bundled trace `python` runs: a list of dictionaries, sorted and grouped."""

from operator import itemgetter

people = []
x = 1
for number in range(7000):
    x = (x * 69069 + 12345) % 2**32
    people.append({"number": number, "name": f"name {x}", "city": f"city {x % 500}", "age": x % 90})
people.sort(key=itemgetter("name"))
cities: dict[str, list[int]] = {}
for person in people:
    cities.setdefault(str(person["city"]), []).append(int(str(person["age"])))
print(max((sum(ages), city) for city, ages in cities.items()))
